"""A plan for people, and for programs that are not ours."""

from __future__ import annotations

import msgspec

from shim.network.operations import CreateTap
from shim.network.plan import Plan


def as_text(plan: Plan) -> str:
    """Numbered operations, each with what undoes it, then what the guest is told."""
    lines = [f"plan for sandbox {plan.sandbox}, dataplane {plan.dataplane}"]
    width = len(str(len(plan.steps)))
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number:>{width + 2}}. {step.do.describe()}")
        margin = " " * (width + 4)
        lines += [f"{margin}undone by: {operation.describe()}" for operation in step.undo]
        if step.lapses:
            lines.append(f"{margin}undone by: nothing, {step.lapses}")
    lines += [f"resolved first: the MAC of {hop.address} on {hop.link}" for hop in plan.resolve]
    for nic in plan.nics:
        lines.append(f"the guest's {nic.name}, on {nic.tap}")
        lines += [
            f"  {name:<8} {value}"
            for name, value in (
                ("address", nic.address),
                ("gateway", nic.gateway or "none"),
                ("MAC", nic.mac),
                ("MTU", str(nic.mtu)),
            )
        ]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines) + "\n"


def as_json(plan: Plan) -> str:
    """The same as one JSON object: operations with their inverses in words, and the guest's interfaces."""
    taps: tuple[CreateTap, ...] = plan.taps
    document = {
        "sandbox": plan.sandbox,
        "dataplane": plan.dataplane,
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
                "tap": nic.tap,
                "mac": nic.mac,
                "mtu": nic.mtu,
                "address": nic.address,
                "gateway": nic.gateway or None,
            }
            for nic in plan.nics
        ],
        "taps": [tap.link for tap in taps],
        "notes": list(plan.notes),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
