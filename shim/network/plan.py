"""The decision: a layout becomes a list of steps and the guest's own view. Pure; nothing is touched.

A plan is plain data: it goes into the journal before it is applied, and undoing needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

import msgspec

from shim.network.addressing.attachment import Attachment, attach
from shim.network.addressing.interfaces import AUTO, Dataplane, candidates, chosen, dataplane_for, refuse_plumbed
from shim.network.dataplanes import bridge, macvtap, mirror
from shim.network.dataplanes.wiring import TapOptions, Wiring, in_order
from shim.network.layout import Layout
from shim.network.operations import AttachProgram, CreateTap, DelLink, OpenMacvtap, Operation, Step
from shim.network.view import GuestInterface

_WIRES = {"bridge": bridge.wire, "mirror": mirror.wire, "macvtap": macvtap.wire}


def undoing(steps: Iterable[Step]) -> tuple[Operation, ...]:
    """What undoes these steps: last first, except that devices go at the very end. The kernel takes tens of
    milliseconds for each, and the interface's addresses must not wait for that."""
    inverses = [operation for step in reversed(tuple(steps)) for operation in step.undo]
    return tuple(sorted(inverses, key=lambda operation: isinstance(operation, DelLink)))


class Unresolved(msgspec.Struct, frozen=True, kw_only=True):
    """A next hop whose MAC must be asked for before the interface `link` (with that index) loses its address; without
    it nothing goes anywhere where it is `vital`."""

    index: int
    link: str
    address: str
    vital: bool = True


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """`view.GuestInterface` as plain text, the tap that carries it, and the truth behind it.

    `index` and `link_mtu` are the pod's interface's, the latter 0 in a plan of before it was noted. `next_hop` and
    `next_hop6` are the pod's own, "" for none; `virtual_mac` is the virtual router's, "" where the guest learns real
    MACs.
    """

    name: str
    index: int
    dataplane: Dataplane
    tap: str
    mac: str
    mtu: int
    address: str = ""
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""
    routes: tuple[str, ...] = ()
    next_hop: str = ""
    next_hop6: str = ""
    virtual_mac: str = ""
    link_mtu: int = 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be done, what undoes it, and what the guest is to be told.

    `resolve` lists next hops still to be resolved; `notes` are sentences about what the guest will not have.
    """

    sandbox: str
    steps: tuple[Step, ...]
    nics: tuple[Nic, ...]
    resolve: tuple[Unresolved, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What is done, in order."""
        return tuple(step.do for step in self.steps)

    @property
    def inverses(self) -> tuple[Operation, ...]:
        """What undoes it, in the order in which that is done."""
        return undoing(self.steps)

    @property
    def taps(self) -> tuple[CreateTap | OpenMacvtap, ...]:
        """The taps, in the order of the guest's interfaces."""
        return tuple(step.do for step in self.steps if isinstance(step.do, CreateTap | OpenMacvtap))

    @property
    def guest(self) -> tuple[GuestInterface, ...]:
        """The guest's interfaces."""
        return tuple(
            GuestInterface(
                name=nic.name,
                mac=nic.mac,
                mtu=nic.mtu,
                address=IPv4Interface(nic.address) if nic.address else None,
                gateway=IPv4Address(nic.gateway) if nic.gateway else None,
                address6=IPv6Interface(nic.address6) if nic.address6 else None,
                gateway6=IPv6Address(nic.gateway6) if nic.gateway6 else None,
                routes=tuple(ip_network(route) for route in nic.routes),
            )
            for nic in self.nics
        )

    def resolved(self, macs: Mapping[tuple[int, str], str]) -> Plan:
        """The same plan with next hops' MACs, by interface index and address, filled in."""

        def fill(step: Step) -> Step:
            operation = step.do
            if not isinstance(operation, AttachProgram):
                return step
            hops = tuple(
                msgspec.structs.replace(hop, mac=hop.mac or macs.get((operation.path.wire, hop.address), ""))
                for hop in operation.edge.hops
            )
            edge = msgspec.structs.replace(operation.edge, hops=hops)
            return msgspec.structs.replace(step, do=msgspec.structs.replace(operation, edge=edge))

        return msgspec.structs.replace(
            self,
            steps=tuple(fill(step) for step in self.steps),
            resolve=tuple(hop for hop in self.resolve if (hop.index, hop.address) not in macs),
        )


def make_plan(
    layout: Layout,
    *,
    seed: str,
    dataplane: str = AUTO,
    tap: TapOptions | None = None,
    interfaces: tuple[str, ...] | None = None,
) -> Plan:
    """Plan the plumbing of the pod's interfaces of those names, in that order; of all candidates by default.

    `seed` is the sandbox's id: the pod's own MACs derive from it. Raises NetworkFault where the layout cannot be handed
    to a guest, InvalidRequest for an unknown dataplane.
    """
    refuse_plumbed(layout)
    names = candidates(layout) if interfaces is None else interfaces
    taken = {link.name for link in layout.links}
    index = max((link.index for link in layout.links), default=0)
    wirings: list[Wiring] = []
    for link in chosen(layout, names):
        tap_name, bridge_name = _free("tap", taken), _free("br", taken)
        taken |= {tap_name, bridge_name}
        wirings.append(
            Wiring(
                layout=layout,
                attachment=attach(layout, link, seed),
                seed=seed,
                tap=tap_name,
                tap_index=index + 1,
                bridge=bridge_name,
                bridge_index=index + 2,
                options=tap or TapOptions(),
            )
        )
        index += 2
    dataplanes = tuple(dataplane_for(wiring.link, dataplane) for wiring in wirings)
    left = [link.name for link in layout.links if link.name in candidates(layout) and link.name not in names]
    return Plan(
        sandbox=seed,
        steps=in_order(tuple(_WIRES[chosen](wiring) for wiring, chosen in zip(wirings, dataplanes, strict=True))),
        nics=tuple(
            _nic(wiring.attachment, wiring.tap, chosen) for wiring, chosen in zip(wirings, dataplanes, strict=True)
        ),
        resolve=tuple(hop for wiring in wirings for hop in _unresolved(wiring.attachment)),
        notes=(
            *(note for wiring in wirings for note in wiring.attachment.notes),
            *(f"interface {name} is left alone" for name in left),
        ),
    )


def _nic(attachment: Attachment, tap: str, dataplane: Dataplane) -> Nic:
    four, six = attachment.four, attachment.six
    return Nic(
        name=attachment.link.name,
        index=attachment.link.index,
        dataplane=dataplane,
        tap=tap,
        mac=attachment.link.mac,
        mtu=attachment.mtu,
        address=four.address if four else "",
        gateway=four.gateway if four else "",
        address6=six.address if six else "",
        gateway6=six.gateway if six else "",
        routes=(*(four.beyond if four else ()), *(six.beyond if six else ())),
        next_hop=four.next_hop if four else "",
        next_hop6=six.next_hop if six else "",
        virtual_mac=attachment.edge.router,
        link_mtu=attachment.link.mtu,
    )


def _unresolved(attachment: Attachment) -> list[Unresolved]:
    vital = {told.hops[0].address for told in (attachment.four, attachment.six) if told is not None and told.hops}
    return [
        Unresolved(
            index=attachment.link.index, link=attachment.link.name, address=hop.address, vital=hop.address in vital
        )
        for hop in attachment.edge.hops
        if not hop.mac
    ]


def _free(stem: str, taken: set[str]) -> str:
    number = 0
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"
