"""What a plan says of one interface, in a picture's words, and what is to be guessed where no plan is known. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shim.network.addressing.interfaces import MARK
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Link
from shim.network.operations import (
    AddNeighbour,
    AttachProgram,
    CreateBridge,
    CreateMacvtap,
    CreateTap,
    DelAddress,
    DelRoute,
    Enslave,
    SetMac,
    SetSysctl,
)
from shim.network.plan import Nic, Plan
from shim.network.topology.seen import Seen

#: Drivers of taps: what a tap is to the kernel, and a macvtap.
_TAPS = ("tun", "macvtap")
#: What the programs that are attached are called (`AttachProgram.encode_with`).
PROGRAM = "unikernel-"


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One interface as it was left by its CNI plugin, and as it was to be.

    `known` says that it is from a plan; a guess has no more than names, and no MAC. `mac` is what the interface was to
    have; `addresses`, `routes` and `pinned` (permanent neighbour entries: addresses and MACs) are what it had and lost;
    `deaf` are the devices on which IPv6 was turned off.
    """

    known: bool
    nic: Nic
    tap_index: int
    bridge: str = ""
    bridge_index: int = 0
    mac: str = ""
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    pinned: tuple[tuple[str, str], ...] = ()
    programs: tuple[AttachProgram, ...] = ()
    deaf: tuple[str, ...] = ()
    persistent: bool = False


def planned(plan: Plan) -> tuple[Planned, ...]:
    """Each of the plan's interfaces, in the guest's order."""
    return tuple(_planned(plan, nic) for nic in plan.nics)


def _planned(plan: Plan, nic: Nic) -> Planned:
    operations = plan.operations
    joined = next((each for each in operations if isinstance(each, Enslave) and each.index == nic.index), None)
    bridge = next(
        (each for each in operations if isinstance(each, CreateBridge) and joined and each.index == joined.master), None
    )
    made = next(each for each in operations if isinstance(each, CreateTap | CreateMacvtap) and each.link == nic.tap)
    given = [each.mac for each in operations if isinstance(each, SetMac) and each.index == nic.index]
    devices = (nic.name, nic.tap, *((bridge.link,) if bridge else ()))
    return Planned(
        known=True,
        nic=nic,
        tap_index=made.index,
        bridge=bridge.link if bridge else "",
        bridge_index=bridge.index if bridge else 0,
        mac=given[-1] if given else nic.mac,
        addresses=_in_order(
            each.address for each in operations if isinstance(each, DelAddress) and each.link == nic.name
        ),
        routes=tuple(_routes(plan, nic)),
        pinned=tuple(
            (inverse.address, inverse.mac)
            for step in plan.steps
            for inverse in step.undo
            if isinstance(inverse, AddNeighbour) and inverse.index == nic.index
        ),
        programs=tuple(
            each for each in operations if isinstance(each, AttachProgram) and each.link in (nic.name, nic.tap)
        ),
        deaf=tuple(
            device
            for device in devices
            for each in operations
            if isinstance(each, SetSysctl) and each.key == f"net/ipv6/conf/{device}/disable_ipv6"
        ),
        persistent=isinstance(made, CreateTap) and made.persistent,
    )


def _in_order(addresses: Iterable[object]) -> tuple[str, ...]:
    """IPv4 first, as the guest has them; the plan removes them in another order."""
    return tuple(sorted(map(str, addresses), key=lambda text: ":" in text))


def _routes(plan: Plan, nic: Nic) -> Iterable[str]:
    """The routes that the pod's own stack had by the interface, those by which everything goes first."""
    found: list[tuple[bool, str]] = []
    for step in plan.steps:
        operation = step.do
        if isinstance(operation, DelRoute) and operation.link == nic.name and operation.route.kind == "unicast":
            found.append((not operation.route.default, str(operation.route)))
        if isinstance(operation, DelAddress) and operation.link == nic.name and len(step.undo) == 1:
            # The kernel makes this one with the address, so it is no step of its own.
            network, address = operation.address.network(), operation.address
            made = network.prefixlen < network.max_prefixlen and not address.flags & rt.IFA_F_NOPREFIXROUTE
            if made and address.scope != rt.RT_SCOPE_LINK:
                found.append((True, str(network)))
    return dict.fromkeys(text for _, text in sorted(found, key=lambda each: (each[0], ":" in each[1])))


def guessed(seen: Seen) -> tuple[Planned, ...]:
    """What a namespace that carries our mark tells of itself. Taps and interfaces are paired in the order in which they
    are made, as a redirecting program does not say whither."""
    marked = [link for link in seen.layout.links if link.alias.startswith(MARK)]
    marked.sort(key=lambda link: (link.name != "eth0", link.index))
    taps = sorted((link for link in seen.layout.links if link.kind in _TAPS), key=lambda link: link.index)
    return tuple(_guessed(seen, link, taps, position) for position, link in enumerate(marked))


def _guessed(seen: Seen, link: Link, taps: list[Link], position: int) -> Planned:
    bridge = seen.link(link.master) if link.master else None
    of_parent = next((tap for tap in taps if tap.kind == "macvtap" and tap.parent == link.index), None)
    of_bridge = next((tap for tap in taps if bridge is not None and tap.master == bridge.index), None)
    tap = of_parent or of_bridge or (taps[position] if position < len(taps) else None)
    return Planned(
        known=False,
        nic=Nic(
            name=link.name,
            index=link.index,
            dataplane="macvtap" if of_parent else "bridge" if bridge else "mirror",
            tap=tap.name if tap else "",
            mac="",
            mtu=0,
        ),
        tap_index=tap.index if tap else 0,
        bridge=bridge.name if bridge else "",
        bridge_index=bridge.index if bridge else 0,
    )
