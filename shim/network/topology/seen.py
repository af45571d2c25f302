"""What the kernel says of a pod's namespace and of the node's side of it, beyond a layout. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.rtnetlink import Family, Ifla, Message, Nda, Netnsa, Tca
from shim.network.layout import Layout, Link, Neighbour

#: A number of 32 bits that stands for none (linux/if_tun.h's owner, linux/net_namespace.h's NETNSA_NSID_NOT_ASSIGNED).
_NONE = 0xFFFFFFFF
#: Drivers whose IFLA_LINK is the interface that they are made on, and not a peer's index.
ON_A_PARENT = ("macvlan", "macvtap", "ipvlan", "ipvtap", "vlan")
_PLACES: dict[int, Literal["ingress", "egress"]] = {rt.INGRESS: "ingress", rt.EGRESS: "egress"}


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An interface as the port of a bridge: its state as bridge(8) has it, and whether MACs are learned there."""

    state: str
    learning: bool


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """A tap's own settings. `persistent` is one that outlives whoever has it open, and that `owner`, a user's id, may
    take by name; None for anybody who may."""

    persistent: bool
    vnet_hdr: bool
    owner: int | None = None


class Further(msgspec.Struct, frozen=True, kw_only=True):
    """What an interface's message says that a `Link` has no use for. `elsewhere` is the number, in the namespace it was
    read in, of the one that its parent or peer is in; None for the same."""

    elsewhere: int | None = None
    port: Port | None = None
    tap: Tap | None = None


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """One filter of tc(8) on the interface `link` (an index): its driver, and its name where that has one."""

    link: int
    place: Literal["ingress", "egress"]
    kind: str
    name: str


class Forwarding(msgspec.Struct, frozen=True, kw_only=True):
    """One MAC that a bridge learned behind its port `link` (an index)."""

    link: int
    mac: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's namespace; `further` is by interface index."""

    layout: Layout
    further: Mapping[int, Further] = {}
    filters: tuple[Filter, ...] = ()
    forwarding: tuple[Forwarding, ...] = ()

    def link(self, index: int) -> Link | None:
        """The interface with that index."""
        return next((link for link in self.layout.links if link.index == index), None)

    def filters_of(self, link: int) -> tuple[Filter, ...]:
        """The filters of one interface."""
        return tuple(each for each in self.filters if each.link == link)


class Beyond(msgspec.Struct, frozen=True, kw_only=True):
    """What an interface of the pod leads to on the node, as far as the node sees it.

    `peer` is a veth's other end or the parent of a macvlan, ipvlan or VLAN, None where neither is in the node's
    namespace; `switch` is what that is a port of. `addresses` are those of either, as text by interface index;
    `neighbours` are their entries for the addresses of the guest; `forwarding` is what a bridge learned, with its
    ports' names in `ports`. `proxies` says that the peer answers ARP for others.
    """

    peer: Link | None = None
    port: Port | None = None
    switch: Link | None = None
    addresses: Mapping[int, tuple[str, ...]] = {}
    neighbours: tuple[Neighbour, ...] = ()
    forwarding: tuple[Forwarding, ...] = ()
    ports: Mapping[int, str] = {}
    proxies: bool = False


def parse_further(body: bytes) -> Further:
    """What one interface's message says beyond a `Link`."""
    found = dict(rt.attributes(body, rt.LINK.size))
    information = dict(rt.attributes(found.get(Ifla.LINKINFO, b"")))
    port = tap = None
    if _text(information.get(Ifla.INFO_SLAVE_KIND)) == "bridge":
        slave = dict(rt.attributes(information.get(Ifla.INFO_SLAVE_DATA, b"")))
        state = _number(slave.get(Ifla.BRPORT_STATE))
        port = Port(
            state=rt.PORT_STATES[state] if state < len(rt.PORT_STATES) else str(state),
            learning=bool(_number(slave.get(Ifla.BRPORT_LEARNING))),
        )
    if _text(information.get(Ifla.INFO_KIND)) == "tun":
        data = dict(rt.attributes(information.get(Ifla.INFO_DATA, b"")))
        tap = Tap(
            persistent=bool(_number(data.get(Ifla.TUN_PERSIST))),
            vnet_hdr=bool(_number(data.get(Ifla.TUN_VNET_HDR))),
            # The kernel leaves the attribute out where nobody is named (tun_fill_info in drivers/net/tun.c).
            owner=_number(data[Ifla.TUN_OWNER]) if Ifla.TUN_OWNER in data else None,
        )
    elsewhere = _number(found[Ifla.LINK_NETNSID]) if Ifla.LINK_NETNSID in found else None
    return Further(elsewhere=elsewhere, port=port, tap=tap)


def parse_filters(messages: Iterable[Message]) -> tuple[Filter, ...]:
    """The filters of a dump. The kernel also lists each of their heads, which are none."""
    filters: list[Filter] = []
    for message in messages:
        _family, index, handle, parent, _info = rt.TRAFFIC.unpack_from(message.body)
        found = dict(rt.attributes(message.body, rt.TRAFFIC.size))
        if not handle or parent not in _PLACES:
            continue
        kind = _text(found.get(Tca.KIND))
        options = dict(rt.attributes(found.get(Tca.OPTIONS, b""))) if kind == "bpf" else {}
        filters.append(Filter(link=index, place=_PLACES[parent], kind=kind, name=_text(options.get(Tca.BPF_NAME))))
    return tuple(filters)


def parse_forwarding(messages: Iterable[Message]) -> tuple[Forwarding, ...]:
    """What bridges learned: neither their ports' own MACs nor what devices filter by."""
    learned: list[Forwarding] = []
    for message in messages:
        family, index, state, _flags, _kind = rt.NEIGHBOUR.unpack_from(message.body)
        found = dict(rt.attributes(message.body, rt.NEIGHBOUR.size))
        # Only what is in a bridge's own table names the bridge (fdb_fill_info in net/bridge/br_fdb.c).
        if family == Family.BRIDGE and not state & rt.NUD_PERMANENT and Nda.MASTER in found and Nda.LLADDR in found:
            learned.append(Forwarding(link=index, mac=found[Nda.LLADDR].hex(":")))
    return tuple(learned)


def parse_number(body: bytes) -> int | None:
    """The number that a network namespace has in another; None where it has got none, so that nothing leads there."""
    number = _number(dict(rt.attributes(body, rt.GENERIC.size)).get(Netnsa.NSID))
    return None if number == _NONE else number


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0


def _text(value: bytes | None) -> str:
    return value.rstrip(b"\0").decode(errors="replace") if value else ""
