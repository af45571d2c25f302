"""A plan for people, and for programs that are not ours."""

from __future__ import annotations

import msgspec

from shim.network.plan import Plan


def as_text(plan: Plan) -> str:
    """Numbered operations, each with what undoes it, then what the guest is told."""
    lines = [f"plan for sandbox {plan.sandbox}"]
    width = len(str(len(plan.steps)))
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number:>{width + 2}}. {step.do.describe()}")
        margin = " " * (width + 4)
        lines += [f"{margin}undone by: {operation.describe()}" for operation in step.undo]
        if step.lapses:
            lines.append(f"{margin}undone by: nothing, {step.lapses}")
    lines += [f"resolved first: the MAC of {hop.address} on {hop.link}" for hop in plan.resolve]
    for nic in plan.nics:
        lines.append(f"the guest's {nic.name}, on {nic.tap}, dataplane {nic.dataplane}")
        lines += [
            f"  {name:<8} {value}"
            for name, value in (
                ("address", nic.address),
                ("gateway", nic.gateway or ("none" if nic.address else "")),
                ("IPv6", nic.address6),
                ("gateway", nic.gateway6 or ("none" if nic.address6 else "")),
                ("routes", ", ".join(nic.routes)),
                ("MAC", nic.mac),
                ("MTU", str(nic.mtu)),
            )
            if value
        ]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines) + "\n"


def as_json(plan: Plan) -> str:
    """The same as one JSON object: operations with their inverses in words, and the guest's interfaces."""
    document = {
        "sandbox": plan.sandbox,
        "operations": [
            {
                "operation": step.do.describe(),
                "inverses": [operation.describe() for operation in step.undo],
                **({"lapses": step.lapses} if step.lapses else {}),
            }
            for step in plan.steps
        ],
        "resolve": [{"interface": hop.link, "address": hop.address} for hop in plan.resolve],
        "guest": [
            {
                "name": nic.name,
                "dataplane": nic.dataplane,
                "tap": nic.tap,
                "mac": nic.mac,
                "mtu": nic.mtu,
                "address": nic.address or None,
                "gateway": nic.gateway or None,
                "address6": nic.address6 or None,
                "gateway6": nic.gateway6 or None,
                "routes": nic.routes,
                "next_hop": nic.next_hop or None,
                "next_hop6": nic.next_hop6 or None,
                "virtual_router": nic.virtual_mac or None,
            }
            for nic in plan.nics
        ],
        "taps": [tap.link for tap in plan.taps],
        "notes": list(plan.notes),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
