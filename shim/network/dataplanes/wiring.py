"""What every dataplane is given, what it gives back, and the steps that all of them take alike. Pure.

Steps that are netlink requests and steps that are done by other means are kept together in *phases*, so that applying
takes two round trips, however many interfaces there are.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shim.network import programs
from shim.network.addressing.attachment import Attachment
from shim.network.addressing.interfaces import MARK
from shim.network.layout import Layout, Link
from shim.network.operations import (
    AttachProgram,
    CarryFilters,
    CreateTap,
    DelLink,
    DetachProgram,
    DropFilters,
    SetAlias,
    SetSysctl,
    Step,
)
from shim.network.programs.edge import Edge


class TapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the monitor takes the tap: `by_name` with `owner` and `group` for one that attaches it itself, `vnet_hdr` for
    one that speaks virtio-net headers. A `persistent` one is there without a descriptor, until it is deleted."""

    vnet_hdr: bool = False
    by_name: bool = False
    persistent: bool = False
    owner: int | None = None
    group: int | None = None


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """One interface to be wired: the names and interface indexes of the devices to be made are chosen already, so that
    later steps can refer to what earlier ones make in the same batch. `seed` is the sandbox's id."""

    layout: Layout
    attachment: Attachment
    seed: str
    tap: str
    tap_index: int
    bridge: str
    bridge_index: int
    options: TapOptions

    @property
    def link(self) -> Link:
        """The pod's interface."""
        return self.attachment.link

    @property
    def edge(self) -> Edge:
        """What is done to its frames."""
        return self.attachment.edge

    def create_tap(self) -> list[Step]:
        """The tap, deaf to IPv6 from its first moment."""
        tap = CreateTap(
            index=self.tap_index,
            link=self.tap,
            vnet_hdr=self.options.vnet_hdr,
            persistent=self.options.persistent,
            owner=self.options.owner,
            group=self.options.group,
        )
        return [Step(do=tap, undo=(DelLink(link=self.tap),)), *self.silence(self.tap)]

    def silence(self, device: str) -> list[Step]:
        """Turn IPv6 off on a device of ours: nothing of the pod's namespace may speak on the guest's wire."""
        if not any(key.startswith("net/ipv6/") for key in self.layout.sysctls):
            return []
        return [Step(do=SetSysctl(key=f"net/ipv6/conf/{device}/disable_ipv6", value="1"), lapses=f"goes with {device}")]

    def mark(self) -> Step:
        """Say whose the interface is."""
        link = self.link
        return Step(
            do=SetAlias(index=link.index, link=link.name, alias=MARK + self.seed),
            undo=(SetAlias(index=link.index, link=link.name, alias=link.alias),),
        )

    def filters_of_link(self) -> list[Step]:
        """Let the pod's interface carry filters, where it does not already."""
        link = self.link
        if link.filters:
            return []
        carry = CarryFilters(index=link.index, link=link.name)
        return [Step(do=carry, undo=(DropFilters(index=link.index, link=link.name),))]

    def filters_of_tap(self) -> Step:
        """Let the tap carry filters."""
        return Step(do=CarryFilters(index=self.tap_index, link=self.tap), lapses=f"goes with {self.tap}")

    def on_wire(self, onward: int | None = None) -> Step:
        """What comes from the wire: at the pod's interface's ingress."""
        return self.on_link("ingress", "wire", programs.Path(onward=onward, wire=self.link.index))

    def on_link(self, place: Literal["ingress", "egress"], side: Literal["guest", "wire"], path: programs.Path) -> Step:
        """A program of the pod's interface."""
        link = self.link
        attach = AttachProgram(index=link.index, link=link.name, place=place, side=side, edge=self.edge, path=path)
        # Filters that were there stay; where there were none they all go with what carries them.
        undo = (DetachProgram(index=link.index, link=link.name, place=place),) if link.filters else ()
        return Step(do=attach, undo=undo, lapses="" if undo else "goes with what carries filters")

    def on_guest(self, onward: int | None = None) -> Step:
        """What comes from the guest: at the tap's ingress."""
        attach = AttachProgram(
            index=self.tap_index,
            link=self.tap,
            place="ingress",
            side="guest",
            edge=self.edge,
            path=programs.Path(onward=onward, answer=self.tap_index, wire=self.link.index),
        )
        return Step(do=attach, lapses=f"goes with {self.tap}")


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """One interface's steps: `prepare` and `settle` run in the namespace, `vacate` and `join` are netlink requests."""

    prepare: tuple[Step, ...]
    vacate: tuple[Step, ...]
    settle: tuple[Step, ...]
    join: tuple[Step, ...]


def in_order(wired: tuple[Phases, ...]) -> tuple[Step, ...]:
    """All interfaces' steps, phase by phase."""
    return tuple(
        step for phase in ("prepare", "vacate", "settle", "join") for phases in wired for step in getattr(phases, phase)
    )
