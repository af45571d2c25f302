"""Asking the kernel: the pod's namespace, and the node's side of each of its interfaces.

What is asked on the node does not grow with its pods, but for what a bridge that the pod is a port of has learned.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from shim.errors import NetworkFault
from shim.network import layout as layouts
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.namespace import Namespace
from shim.network.kernel.netlink import Netlink, NetlinkError, open_socket
from shim.network.kernel.rtnetlink import Family, Kind, Message, Nda, Netnsa
from shim.network.layout import Layout, Link, Neighbour, parse_address, parse_link, parse_neighbour
from shim.network.operations.base import neighbour_message
from shim.network.topology.seen import (
    Beyond,
    Forwarding,
    Further,
    Seen,
    parse_filters,
    parse_forwarding,
    parse_further,
    parse_number,
)
from shim.threads import in_thread

T = TypeVar("T")

#: The namespace of the thread that looks (proc(5)).
_OWN = Path("/proc/thread-self/ns/net")
_PROXIES = "/proc/sys/net/ipv4/conf/{}/proxy_arp"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which interface of the pod's, and which addresses the node may have neighbour entries for."""

    link: Link
    further: Further
    addresses: tuple[str, ...]


async def read_pod(pod: Namespace) -> Seen:
    """The pod's namespace. Raises NetworkFault if the kernel does not say."""
    try:
        return await pod.run(lambda: _read_pod(pod.netlink))
    except OSError as error:
        raise _fault(error, os.fspath(pod.path)) from error


async def read_node(pod: Namespace, asked: Sequence[Question], node: Namespace | None = None) -> dict[int, Beyond]:
    """The node's side, by the index of the pod's interface. `node` is the node's namespace, by default the one that
    this process is in. Raises NetworkFault if the kernel does not say."""
    work: Callable[[Netlink], dict[int, Beyond]] = lambda netlink: _read_node(netlink, pod, asked)  # noqa: E731
    try:
        if node is not None:
            return await node.run(lambda: work(node.netlink))
        return await in_thread(_with_socket, work)
    except OSError as error:
        raise _fault(error, "the node's network") from error


def _with_socket(work: Callable[[Netlink], T]) -> T:
    netlink = Netlink(open_socket())
    try:
        return work(netlink)
    finally:
        netlink.close()


def _fault(error: OSError, subject: str) -> NetworkFault:
    words = error.strerror or os.strerror(error.errno or 0)
    return NetworkFault(f"the network cannot be read: {words}", subject=subject)


def _read_pod(netlink: Netlink) -> Seen:
    """Runs in the pod's namespace."""
    dumps = layouts.take_dumps(netlink)
    layout = layouts.with_settings(layouts.from_messages(dumps))
    return Seen(
        layout=layout,
        further={parse_link(each.body).index: parse_further(each.body) for each in dumps.links},
        filters=parse_filters(_dump_filters(netlink, layout)),
        forwarding=parse_forwarding(_dump_forwarding(netlink)) if _has_bridge(layout) else (),
    )


def _has_bridge(layout: Layout) -> bool:
    return any(link.kind == "bridge" for link in layout.links)


def _dump_filters(netlink: Netlink, layout: Layout) -> list[Message]:
    found: list[Message] = []
    for link in layout.links:
        for place in (rt.INGRESS, rt.EGRESS) if link.filters else ():
            body = rt.TRAFFIC.pack(0, link.index, 0, place, 0)
            found += netlink.dump(Kind.GETTFILTER, body, f"list the filters of {link.name}")
    return found


def _dump_forwarding(netlink: Netlink, bridge: int = 0) -> list[Message]:
    body = rt.NEIGHBOUR.pack(Family.BRIDGE, 0, 0, 0, 0) + (rt.u32(Nda.MASTER, bridge) if bridge else b"")
    return netlink.dump(Kind.GETNEIGH, body, "list what bridges learned")


def _read_node(netlink: Netlink, pod: Namespace, asked: Sequence[Question]) -> dict[int, Beyond]:
    """Runs in the node's namespace."""
    with _OWN.open("rb") as own:
        number = _number_of(pod.netlink, own.fileno())
    return {question.link.index: _beyond(netlink, number, question) for question in asked}


def _number_of(netlink: Netlink, namespace: int) -> int | None:
    """The number by which the socket's namespace knows another; None where it does not."""
    body = rt.GENERIC.pack(0) + rt.u32(Netnsa.FD, namespace)
    return parse_number(netlink.get(Kind.GETNSID, body, "ask which namespace that is").body)


def _beyond(netlink: Netlink, node: int | None, question: Question) -> Beyond:
    """`node` is the number by which the pod's namespace knows the node's."""
    link, elsewhere = question.link, question.further.elsewhere
    if not link.parent or elsewhere is None or elsewhere != node:
        return Beyond()
    found = _get(netlink, Kind.GETLINK, layouts.link_request(link.parent), f"look up what {link.name} leads to")
    if found is None:
        return Beyond()
    peer, further = parse_link(found.body), parse_further(found.body)
    switch = _link(netlink, peer.master)
    places = [each for each in (peer, switch) if each is not None]
    forwarding: tuple[Forwarding, ...] = ()
    ports: Mapping[int, str] = {}
    if switch is not None and switch.kind == "bridge":
        forwarding = parse_forwarding(_dump_forwarding(netlink, switch.index))
        ports = _names(netlink, {each.link for each in forwarding})
    return Beyond(
        peer=peer,
        port=further.port,
        switch=switch,
        addresses={each.index: _addresses(netlink, each) for each in places},
        neighbours=tuple(
            entry
            for each in places
            for address in question.addresses
            if (entry := _neighbour(netlink, each, address)) is not None
        ),
        forwarding=forwarding,
        ports=ports,
        proxies=_proxies(peer.name),
    )


def _link(netlink: Netlink, index: int) -> Link | None:
    if not index:
        return None
    found = _get(netlink, Kind.GETLINK, layouts.link_request(index), f"look interface {index} up")
    return parse_link(found.body) if found is not None else None


def _names(netlink: Netlink, indexes: set[int]) -> dict[int, str]:
    return {index: link.name for index in sorted(indexes) if (link := _link(netlink, index)) is not None}


def _addresses(netlink: Netlink, link: Link) -> tuple[str, ...]:
    found = netlink.dump(Kind.GETADDR, rt.ADDRESS.pack(0, 0, 0, 0, link.index), f"list the addresses of {link.name}")
    return tuple(str(parse_address(each.body)) for each in found)


def _neighbour(netlink: Netlink, link: Link, address: str) -> Neighbour | None:
    found = _get(netlink, Kind.GETNEIGH, neighbour_message(link.index, address, 0), f"look {address} up")
    return parse_neighbour(found.body) if found is not None else None


def _proxies(name: str) -> bool:
    try:
        return Path(_PROXIES.format(name)).read_text().strip() == "1"
    except OSError:  # gone meanwhile, or a kernel without IPv4
        return False


def _get(netlink: Netlink, kind: Kind, body: bytes, operation: str) -> Message | None:
    """One object, None where there is none."""
    try:
        return netlink.get(kind, body, operation)
    except NetlinkError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return None
        raise
