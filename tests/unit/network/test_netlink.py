"""The wire format and the transport, against pyroute2's parser and a socket pair that plays the kernel."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from shim.errors import Bug
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.netlink import Netlink, NetlinkError, Request, _batches
from shim.network.kernel.rtnetlink import Flag, Kind, Message
from shim.network.layout import Dumps, Layout, Rule, from_messages
from shim.network.operations import AddNeighbour, AttachProgram, CreateBridge, Enslave, SetAlias
from shim.network.programs import Path
from shim.network.programs.edge import Edge


def parse(kind: Any, body: bytes) -> Any:
    """What another implementation makes of a body."""
    message = kind(rt.message(16, 0, 1, body))
    message.decode()
    return message


def test_bridge_as_another_parser_reads_it() -> None:
    operation = CreateBridge(index=7, link="br0", mac="02:00:00:00:00:01", mtu=1400)
    (creation,) = operation.encode()
    (alias,) = SetAlias(index=7, link="br0", alias="mark").encode()
    message = parse(ifinfmsg, creation.body)
    assert message["index"] == 7
    assert message.get_attr("IFLA_IFNAME") == "br0"
    assert message.get_attr("IFLA_MTU") == 1400
    assert message.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    assert message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_BR_MCAST_SNOOPING") == 0
    assert parse(ifinfmsg, alias.body).get_attr("IFLA_IFALIAS") == "mark"
    (port,) = Enslave(index=2, link="eth0", master=7, bridge="br0").encode()
    assert parse(ifinfmsg, port.body).get_attr("IFLA_MASTER") == 7


def test_neighbours_as_another_parser_reads_them() -> None:
    (request,) = AddNeighbour(index=7, link="eth0", address="10.1.2.1", mac="02:00:00:00:00:01").encode()
    message = parse(ndmsg, request.body)
    assert (message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")) == ("10.1.2.1", "02:00:00:00:00:01")
    assert message["state"] == rt.NUD_PERMANENT


def test_programs_as_another_parser_reads_them() -> None:
    operation = AttachProgram(index=7, link="eth0", place="ingress", side="wire", edge=Edge(), path=Path())
    (request,) = operation.encode_with(9)
    message = parse(tcmsg, request.body)
    assert (message["index"], message["parent"], message["handle"]) == (7, rt.INGRESS, 1)
    assert message.get_attr("TCA_KIND") == "bpf"
    with pytest.raises(Bug, match="by its descriptor"):
        operation.encode()


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(rt.attribute(kind, value) for kind, value in pairs)
    assert list(rt.attributes(data)) == pairs


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_nothing(data: bytes) -> None:
    for parser in (rt.attributes, rt.messages):
        try:
            list(parser(data))
        except ValueError as error:
            assert "bytes at" in str(error)


def test_layout_from_messages() -> None:
    link = rt.LINK.pack(0, 1, 2, rt.IFF_UP, 0) + rt.text(rt.Ifla.IFNAME, "eth0") + rt.u32(rt.Ifla.MTU, 1450)
    link += rt.attribute(rt.Ifla.ADDRESS, bytes.fromhex("02005e100002"))
    link += rt.nested(rt.Ifla.LINKINFO, rt.text(rt.Ifla.INFO_KIND, "veth"))
    address = rt.ADDRESS.pack(2, 32, 0x80, 0, 2) + rt.attribute(rt.Ifa.LOCAL, bytes((10, 0, 0, 2)))
    address += rt.attribute(rt.Ifa.ADDRESS, bytes((10, 0, 0, 1)))
    route = rt.ROUTE.pack(2, 0, 0, 0, 254, 3, 0, 1, 0) + rt.u32(rt.Rta.OIF, 2)
    route += rt.attribute(rt.Rta.GATEWAY, bytes((10, 0, 0, 1)))
    route += rt.nested(rt.Rta.METRICS, rt.u32(rt.Rta.METRIC_MTU, 1400))
    entry = rt.NEIGHBOUR.pack(2, 2, rt.NUD_PERMANENT, 0, 0) + rt.attribute(rt.Nda.DST, bytes((10, 0, 0, 1)))
    forwarding = rt.NEIGHBOUR.pack(7, 2, rt.NUD_PERMANENT, 0, 0)

    def one(body: bytes) -> list[Message]:
        return [Message(16, 0, 1, body)]

    label = rt.ROUTE.pack(28, 20, 0, 0, 254, 3, 0, 1, 0) + rt.attribute(rt.Rta.DST, bytes(4))  # AF_MPLS
    cached = rt.ROUTE.pack(2, 32, 0, 0, 254, 3, 0, 1, rt.RTM_F_CLONED) + rt.attribute(rt.Rta.DST, bytes(4))
    routes = one(route) + one(label) + one(cached)
    rule = rt.RULE.pack(2, 0, 32, 0, 7, 1, 0) + rt.attribute(rt.Fra.SRC, bytes((10, 0, 0, 2)))
    rule += rt.u32(rt.Fra.PRIORITY, 100) + rt.u32(rt.Fra.TABLE, 700) + rt.u32(rt.Fra.SUPPRESS_PREFIXLEN, 0xFFFFFFFF)
    marked = rt.RULE.pack(2, 0, 0, 0, 7, 1, 0) + rt.u32(rt.Fra.FWMARK, 9)
    discipline = rt.TRAFFIC.pack(0, 2, rt.CLSACT_HANDLE, rt.TC_H_CLSACT, 0) + rt.text(rt.Tca.KIND, "clsact")
    root = rt.TRAFFIC.pack(0, 2, 0, 0xFFFFFFFF, 0) + rt.text(rt.Tca.KIND, "noqueue")
    found: Layout = from_messages(
        Dumps(
            links=one(link),
            addresses=one(address),
            routes=routes,
            neighbours=one(entry) + one(forwarding),
            rules=one(rule) + one(marked),
            disciplines=one(root) + one(discipline),
        )
    )
    assert found.rules == (
        Rule(version=4, priority=100, source="10.0.0.2/32", table=700),
        Rule(version=4, priority=0, table=7, narrow=True),
    )
    assert len(found.routes) == 1
    eth0 = found.link("eth0")
    assert eth0 is not None and (eth0.kind, eth0.mtu, eth0.mac) == ("veth", 1450, "02:00:5e:10:00:02")
    assert eth0.filters == "clsact"
    assert str(found.addresses[0]) == "10.0.0.2 peer 10.0.0.1/32" and found.addresses[0].raw == address
    assert (found.routes[0].default, found.routes[0].gateway, found.routes[0].mtu) == (True, "10.0.0.1", 1400)
    assert len(found.neighbours) == 1 and not found.neighbours[0].valid, "an entry without a MAC is no answer"


class Kernel:
    """The other end of a socket pair: hands each datagram's messages to `answer` and sends what that returns."""

    def __init__(self, answer: Callable[[list[Message]], list[bytes]]) -> None:
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.settimeout(5)
        self._theirs.setblocking(False)
        self._answer = answer
        self.datagrams = 0

    def sendto(self, data: bytes, _address: object) -> None:
        self.datagrams += 1
        for reply in self._answer(list(rt.messages(data))):
            self._theirs.send(reply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ours, name)

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def kernel() -> Iterator[Callable[[Callable[[list[Message]], list[bytes]]], tuple[Netlink, Kernel]]]:
    made: list[Kernel] = []

    def make(answer: Callable[[list[Message]], list[bytes]]) -> tuple[Netlink, Kernel]:
        made.append(Kernel(answer))
        return Netlink(made[-1]), made[-1]  # type: ignore[arg-type]

    yield make
    for one in made:
        one.close()


def ack(message: Message, number: int = 0, detail: str = "") -> bytes:
    body = struct.pack("=i", -number) + rt.HEADER.pack(16, message.kind, message.flags, message.sequence, 0)
    flags = int(Flag.CAPPED)
    if detail:
        flags |= Flag.ACK_TLVS
        body += rt.text(1, detail)
    return rt.message(Kind.ERROR, flags, message.sequence, body)


def requests(count: int, size: int = 16) -> list[Request]:
    return [Request(Kind.NEWLINK, 0, b"\0" * size, f"request {number}") for number in range(count)]


def test_outcomes_are_matched_by_sequence(kernel: Any) -> None:
    """Answers out of order, between others' and old ones: each request still gets its own."""

    def answer(messages: list[Message]) -> list[bytes]:
        stray = rt.message(Kind.ERROR, 0, 99999, struct.pack("=i", -errno.EIO))
        return [stray] + [ack(m, errno.EPERM if m is messages[1] else 0, "no such luck") for m in reversed(messages)]

    netlink, wire = kernel(answer)
    outcomes = netlink.attempt(requests(3))
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert wire.datagrams == 1
    error = outcomes[1]
    assert isinstance(error, NetlinkError) and error.errno == errno.EPERM
    assert (error.operation, error.detail) == ("request 1", "no such luck")
    assert str(error) == "[Errno 1] request 1: Operation not permitted (no such luck)"
    with pytest.raises(NetlinkError, match="request 1"):
        netlink.execute(requests(3))


def test_inconsistent_dump_is_repeated(kernel: Any) -> None:
    attempts = 0

    def answer(messages: list[Message]) -> list[bytes]:
        nonlocal attempts
        attempts += 1
        flags = Flag.MULTI | (Flag.DUMP_INTR if attempts < 3 else 0)
        sequence = messages[0].sequence
        return [
            rt.message(Kind.NEWLINK, flags, sequence, bytes((attempts,))),
            rt.message(Kind.DONE, flags, sequence, struct.pack("=i", 0)),
        ]

    netlink, _ = kernel(answer)
    found = netlink.dump(Kind.GETLINK, b"", "list")
    assert [message.body for message in found] == [b"\x03"]


def test_dump_that_never_settles(kernel: Any) -> None:
    def answer(messages: list[Message]) -> list[bytes]:
        return [rt.message(Kind.DONE, Flag.DUMP_INTR, messages[0].sequence, struct.pack("=i", 0))]

    netlink, _ = kernel(answer)
    with pytest.raises(NetlinkError, match="kept changing"):
        netlink.dump(Kind.GETLINK, b"", "list")


def test_dump_that_fails_at_its_end(kernel: Any) -> None:
    def answer(messages: list[Message]) -> list[bytes]:
        return [rt.message(Kind.DONE, Flag.MULTI, messages[0].sequence, struct.pack("=i", -errno.ENOMEM))]

    netlink, _ = kernel(answer)
    with pytest.raises(NetlinkError, match="list: Cannot allocate memory"):
        netlink.dump(Kind.GETLINK, b"", "list")


def test_a_kernel_that_does_not_answer(kernel: Any) -> None:
    netlink, wire = kernel(lambda messages: [])
    wire.ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        netlink.attempt(requests(1))


def test_big_batches_are_split() -> None:
    many = requests(1000)
    split = _batches(many)
    assert [request for batch in split for request in batch] == many
    assert max(map(len, split)) <= 256
    large = _batches(requests(100, size=4096))
    assert max(sum(len(request.body) for request in batch) for batch in large) <= 64 << 10
    assert _batches([]) == []
