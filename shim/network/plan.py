"""The decision: a layout becomes a list of steps and the guest's own view. Pure; nothing is touched.

A plan is plain data: it goes into the journal before it is applied, and undoing needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface

import msgspec

from shim.errors import InvalidRequest
from shim.network import bridge
from shim.network.addressing import attach
from shim.network.layout import Layout
from shim.network.operations import AddForwarding, AnswerFor, CreateTap, DelLink, Operation, Step
from shim.network.view import GuestInterface

#: The dataplanes there are.
DATAPLANES = ("bridge",)


def undoing(steps: Iterable[Step]) -> tuple[Operation, ...]:
    """What undoes these steps: last first, except that devices go at the very end. The kernel takes tens of
    milliseconds for each, and the interface's addresses must not wait for that."""
    inverses = [operation for step in reversed(tuple(steps)) for operation in step.undo]
    return tuple(sorted(inverses, key=lambda operation: isinstance(operation, DelLink)))


class TapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the monitor takes the tap: `persistent` with `owner` and `group` for one that attaches by name, `vnet_hdr`
    for one that speaks virtio-net headers."""

    vnet_hdr: bool = False
    persistent: bool = False
    owner: int | None = None
    group: int | None = None


class NextHop(msgspec.Struct, frozen=True, kw_only=True):
    """A next hop whose MAC must be known before the interface `link` (with that index) loses its address."""

    index: int
    link: str
    address: str


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """`view.GuestInterface` as plain text, and the tap that carries it."""

    name: str
    tap: str
    mac: str
    mtu: int
    address: str
    gateway: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be done, what undoes it, and what the guest is to be told.

    `resolve` lists next hops still to be resolved; `notes` are sentences about what the guest will not have.
    """

    sandbox: str
    dataplane: str
    steps: tuple[Step, ...]
    nics: tuple[Nic, ...]
    resolve: tuple[NextHop, ...] = ()
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
    def taps(self) -> tuple[CreateTap, ...]:
        """The taps, in the order of the guest's interfaces."""
        return tuple(step.do for step in self.steps if isinstance(step.do, CreateTap))

    @property
    def guest(self) -> tuple[GuestInterface, ...]:
        """The guest's interfaces."""
        return tuple(
            GuestInterface(
                name=nic.name,
                mac=nic.mac,
                mtu=nic.mtu,
                address=IPv4Interface(nic.address),
                gateway=IPv4Address(nic.gateway) if nic.gateway else None,
            )
            for nic in self.nics
        )

    def resolved(self, macs: Mapping[str, str]) -> Plan:
        """The same plan with next hops' MACs (by address) filled in."""

        def fill(step: Step) -> Step:
            operation = step.do
            if isinstance(operation, AddForwarding | AnswerFor) and operation.next_hop in macs:
                filled = msgspec.structs.replace(operation, mac=macs[operation.next_hop])
                return msgspec.structs.replace(step, do=filled)
            return step

        return msgspec.structs.replace(
            self,
            steps=tuple(fill(step) for step in self.steps),
            resolve=tuple(hop for hop in self.resolve if hop.address not in macs),
        )


def make_plan(
    layout: Layout,
    *,
    seed: str,
    dataplane: str = "bridge",
    tap: TapOptions | None = None,
    keep_mac: bool = True,
) -> Plan:
    """Plan the plumbing of eth0.

    `seed` is the sandbox's id: the pod's substitute MAC derives from it. `keep_mac` False gives the guest that MAC and
    leaves eth0 its own, which breaks wherever the network knows the pod by its MAC; it exists for the test of that.
    Raises NetworkFault where the layout cannot be handed to a guest, InvalidRequest for an unknown dataplane.
    """
    if dataplane not in DATAPLANES:
        raise InvalidRequest(f"there is no dataplane {dataplane!r}", remedy=f"choose one of {', '.join(DATAPLANES)}")
    attachment = attach(layout)
    link = attachment.link
    options = tap or TapOptions()
    highest = max(link.index for link in layout.links)
    names = {link.name for link in layout.links}
    # The indexes are chosen here, so that later steps can refer to devices that earlier ones make in the same batch.
    create = CreateTap(
        index=highest + 1,
        link=_free("tap", names),
        vnet_hdr=options.vnet_hdr,
        persistent=options.persistent,
        owner=options.owner,
        group=options.group,
    )
    hop = str(attachment.next_hop or "")
    mac = next(
        (entry.mac for entry in layout.neighbours if entry.link == link.index and entry.address == hop and entry.valid),
        "",
    )
    unresolved = attachment.proxied and not mac
    return Plan(
        sandbox=seed,
        dataplane=dataplane,
        steps=bridge.steps(
            layout,
            attachment,
            create,
            _free("br", names),
            highest + 2,
            seed=seed,
            next_hop_mac=mac,
            move_mac=keep_mac,
        ),
        nics=(
            Nic(
                name=link.name,
                tap=create.link,
                mac=link.mac if keep_mac else bridge.derived_mac(seed, link.name),
                mtu=attachment.mtu,
                address=str(attachment.address),
                gateway=str(attachment.gateway or ""),
            ),
        ),
        resolve=(NextHop(index=link.index, link=link.name, address=hop),) if unresolved else (),
        notes=attachment.notes,
    )


def _free(stem: str, taken: set[str]) -> str:
    number = 0
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"
