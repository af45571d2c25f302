"""The programs at a NIC's edge, taken and run by the kernel itself on frames made here (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import pytest

from shim.network.kernel import bpf
from shim.network.programs import Path, guest_side, hop_values, wire_side
from shim.network.programs.assembly import Assembler
from shim.network.programs.edge import Answer, Edge, Hop, Steer
from shim.network.programs.fitting import REST

GUEST, ROUTER, REAL, SECOND = (
    bytes.fromhex(text) for text in ("02005e100002", "0a0000000001", "eeeeeeeeeeee", "0200000000aa")
)
PASS, DROP, REDIRECT = 0xFFFFFFFF, 2, 7
_LOOKUP, _TEST_RUN = 1, 10  # enum bpf_cmd (linux/bpf.h)
EDGE = Edge(
    own=("10.1.2.3", "2001:db8::5"),
    router=ROUTER.hex(":"),
    answers=(
        Answer(network="10.1.2.0/29", mac=ROUTER.hex(":")),
        Answer(network="10.1.2.6/32", mac=SECOND.hex(":")),
        Answer(network="fe80::1/128", mac=ROUTER.hex(":")),
    ),
    hops=(
        Hop(address="169.254.1.1", mac=REAL.hex(":")),
        Hop(address="10.9.9.9", mac=SECOND.hex(":")),
        Hop(address="fe80::99", mac=REAL.hex(":")),
    ),
    steers=(
        Steer(network="0.0.0.0/0", hop=0),
        Steer(network="10.20.0.0/14", hop=1),
        Steer(network="10.21.0.0/16", hop=None),
        Steer(network="::/0", hop=2),
        Steer(network="2001:db8:4::/47", hop=1),
    ),
    mtu=1400,
)  # fmt: skip


class Loaded:
    """A program in the kernel, and its map."""

    def __init__(self, code: Assembler, edge: Edge) -> None:
        self.map = bpf.make_array(hop_values(edge)) if code.uses_map else -1
        self.program = bpf.load_classifier(code.code(self.map), "test")

    def run(self, frame: bytes, mark: int = 0) -> tuple[int, bytes]:
        """The verdict, and the frame as the program left it."""
        given = ctypes.create_string_buffer(frame, len(frame))
        context = ctypes.create_string_buffer(struct.pack("=8xI180x", mark), 192)
        out = ctypes.create_string_buffer(4096)
        attributes = struct.pack(
            "=IIIIQQIIIIQQ",
            self.program,
            0,
            len(frame),
            len(out),
            ctypes.addressof(given),
            ctypes.addressof(out),
            1,
            0,
            len(context),
            0,
            ctypes.addressof(context),
            0,
        )
        buffer = ctypes.create_string_buffer(attributes, 120)
        assert bpf._libc.syscall(321, _TEST_RUN, buffer, 120) == 0, os.strerror(ctypes.get_errno())
        _, verdict, _, length = struct.unpack_from("=IIII", buffer.raw)
        return verdict, out.raw[:length]

    def mac(self, hop: int) -> bytes:
        """The MAC that the map has for a next hop."""
        key, value = ctypes.create_string_buffer(struct.pack("=I", hop), 4), ctypes.create_string_buffer(8)
        addresses = struct.pack("=IxxxxQQQ", self.map, ctypes.addressof(key), ctypes.addressof(value), 0)
        bpf._bpf(_LOOKUP, addresses)
        return value.raw[:6]

    def close(self) -> None:
        for descriptor in (self.map, self.program):
            with suppress(OSError):
                os.close(descriptor)


@contextmanager
def loaded(code: Assembler, edge: Edge = EDGE) -> Iterator[Loaded]:
    made = Loaded(code, edge)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def guest() -> Iterator[Loaded]:
    with loaded(guest_side(EDGE, Path(answer=1, wire=1))) as made:
        yield made


@pytest.fixture
def wire() -> Iterator[Loaded]:
    with loaded(wire_side(EDGE, Path())) as made:
        yield made


def ip(text: str) -> bytes:
    return ip_address(text).packed


def arp(operation: int, sender: str, target: str, *, source: bytes = GUEST, to: bytes = b"\xff" * 6) -> bytes:
    head = to + source + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return head + source + ip(sender) + b"\0" * 6 + ip(target)


def total(data: bytes) -> int:
    """RFC 1071's sum, complemented."""
    words: int = sum(struct.unpack(f">{len(data) // 2}H", data if len(data) % 2 == 0 else data + b"\0"))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return ~words & 0xFFFF


def ipv4(
    target: str, payload: bytes, *, to: bytes = ROUTER, protocol: int = 6, options: bytes = b"", fragment: int = 0
) -> bytes:
    length = 20 + len(options)
    head = struct.pack(">BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 7, fragment, 64, protocol, 0)
    head += ip("10.1.2.3") + ip(target) + options
    head = head[:10] + struct.pack(">H", total(head)) + head[12:]
    return to + GUEST + b"\x08\x00" + head + payload


def ipv6(target: str, payload: bytes, *, to: bytes = ROUTER, protocol: int = 6, source: str = "2001:db8::5") -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + ip(source) + ip(target)
    return to + GUEST + b"\x86\xdd" + head + payload


def pseudo(source: bytes, target: bytes, protocol: int, payload: bytes) -> bytes:
    return source + target + struct.pack(">II", len(payload), protocol) + payload


def tcp(options: bytes, source: str, target: str, flags: int = 2) -> bytes:
    options += b"\0" * (-len(options) % 4)
    head = struct.pack(">HHIIBBHHH", 40000, 80, 1, 0, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options
    summed = total(pseudo(ip(source), ip(target), 6, head))
    return head[:16] + struct.pack(">H", summed) + head[18:]


def solicitation(target: str, *, source: str = "2001:db8::5", option: bool = True) -> bytes:
    message = struct.pack(">BBHI", 135, 0, 0, 0) + ip(target) + (b"\x01\x01" + GUEST if option else b"")
    message = message[:2] + struct.pack(">H", total(pseudo(ip(source), ip(target), 58, message))) + message[4:]
    return ipv6(target, message, protocol=58, source=source, to=bytes.fromhex("3333ff000001"))


@pytest.mark.parametrize("target", ["10.1.2.1", "10.1.2.4"])
def test_arp_is_answered_for_the_virtual_router(guest: Loaded, target: str) -> None:
    verdict, frame = guest.run(arp(1, "10.1.2.3", target))
    assert verdict == REDIRECT
    assert frame == GUEST + ROUTER + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + ROUTER + ip(
        target
    ) + GUEST + ip("10.1.2.3")


def test_a_pinned_address_is_answered_with_its_own_mac(guest: Loaded) -> None:
    verdict, frame = guest.run(arp(1, "10.1.2.3", "10.1.2.6"))
    assert verdict == REDIRECT and frame[6:12] == SECOND and frame[22:28] == SECOND


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (arp(1, "10.1.2.3", "10.1.2.3"), "an announcement"),
        (arp(1, "0.0.0.0", "10.1.2.1"), "a probe"),
        (arp(1, "10.1.2.3", "10.1.2.9"), "not in the prefix"),
        (arp(2, "10.1.2.3", "10.1.2.1"), "a reply"),
        (arp(1, "10.1.2.3", "10.1.2.1")[:30], "cut off"),
        (solicitation("fe80::2"), "somebody else"),
        (solicitation("fe80::1", source="::"), "duplicate address detection"),
        (solicitation("fe80::1")[:70], "cut off"),
        (GUEST + GUEST + b"\x88\xcc" + b"x" * 50, "another protocol"),
    ],
)
def test_what_is_not_for_it_passes_as_it_is(guest: Loaded, frame: bytes, why: str) -> None:
    assert guest.run(frame) == (PASS, frame), why


@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize("source", ["2001:db8::5", "fe80::5eff:fe10:2"])
def test_a_solicitation_is_answered(guest: Loaded, option: bool, source: str) -> None:
    verdict, frame = guest.run(solicitation("fe80::1", option=option, source=source))
    assert verdict == REDIRECT
    message = struct.pack(">BBHI", 136, 0, 0, 0x60000000) + ip("fe80::1") + b"\x02\x01" + ROUTER
    message = message[:2] + struct.pack(">H", total(pseudo(ip("fe80::1"), ip(source), 58, message))) + message[4:]
    assert frame[:14] == GUEST + ROUTER + b"\x86\xdd"
    assert frame[18:22] == struct.pack(">HBB", 32, 58, 255)
    assert frame[22:54] == ip("fe80::1") + ip(source)
    assert frame[54:] == message


@pytest.mark.parametrize(
    ("target", "mac"),
    [("8.8.8.8", REAL), ("10.20.1.1", SECOND), ("10.23.255.255", SECOND), ("10.24.0.0", REAL), ("10.21.0.1", None)],
)
def test_routes_choose_the_next_hop(guest: Loaded, target: str, mac: bytes | None) -> None:
    frame = ipv4(target, b"x" * 20, protocol=17)
    assert guest.run(frame) == ((PASS, mac + frame[6:]) if mac else (DROP, frame))
    direct = ipv4(target, b"x" * 20, to=SECOND, protocol=17)
    assert guest.run(direct) == (PASS, direct), "what is not for the virtual router is not touched"


@pytest.mark.parametrize(
    ("target", "mac"), [("2001:db8:5::1", SECOND), ("2001:db8:4:ffff::1", SECOND), ("2001:db8:6::", REAL)]
)
def test_routes_choose_the_next_hop_of_ipv6(guest: Loaded, target: str, mac: bytes) -> None:
    frame = ipv6(target, b"x" * 20, protocol=17)
    assert guest.run(frame) == (PASS, mac + frame[6:])


MSS = b"\x02\x04\x05\xb4"  # 1460


@pytest.mark.parametrize(
    "options", [MSS, b"\x01" + MSS, b"\x01\x01" + MSS, b"\x03\x03\x07" + MSS, b"\x04\x02\x08\x0a" + b"t" * 8 + MSS]
)
@pytest.mark.parametrize("side", ["guest", "wire"])
def test_segment_size_is_lowered_with_its_checksum(request: pytest.FixtureRequest, side: str, options: bytes) -> None:
    program: Loaded = request.getfixturevalue(side)
    families: tuple[tuple[Callable[..., bytes], str, str, int], ...] = (
        (ipv4, "10.1.2.3", "8.8.8.8", 1360),
        (ipv6, "2001:db8::5", "2001:db8:9::1", 1340),
    )
    for make, source, target, most in families:
        frame = make(target, tcp(options, source, target), to=SECOND)
        wanted = make(
            target, tcp(options.replace(MSS, b"\x02\x04" + most.to_bytes(2, "big")), source, target), to=SECOND
        )
        assert program.run(frame) == (PASS, wanted)


def test_segment_size_is_lowered_behind_ip_options_and_after_steering(guest: Loaded) -> None:
    frame = ipv4("8.8.8.8", tcp(MSS, "10.1.2.3", "8.8.8.8"), options=b"\x01" * 4)
    wanted = ipv4("8.8.8.8", tcp(b"\x02\x04\x05\x50", "10.1.2.3", "8.8.8.8"), options=b"\x01" * 4, to=REAL)
    assert guest.run(frame) == (PASS, wanted)


@pytest.mark.parametrize(
    "payload",
    [
        tcp(b"\x02\x04\x05\x00", "10.1.2.3", "8.8.8.8"),
        tcp(b"", "10.1.2.3", "8.8.8.8"),
        tcp(MSS, "10.1.2.3", "8.8.8.8", flags=0x10),
        tcp(b"\x00" + MSS, "10.1.2.3", "8.8.8.8"),
        tcp(b"\x05\x00" + MSS, "10.1.2.3", "8.8.8.8"),
        tcp(b"\x01" * 20 + MSS, "10.1.2.3", "8.8.8.8"),
        tcp(MSS, "10.1.2.3", "8.8.8.8")[:18],
        b"",
    ],
)
def test_other_segments_are_left_alone(wire: Loaded, payload: bytes) -> None:
    frame = ipv4("8.8.8.8", payload)
    assert wire.run(frame) == (PASS, frame)


def test_a_later_fragment_is_left_alone(wire: Loaded) -> None:
    frame = ipv4("8.8.8.8", tcp(MSS, "10.1.2.3", "8.8.8.8"), fragment=100)
    assert wire.run(frame) == (PASS, frame)


def headers(frame: bytes) -> tuple[int, int, int, bytes]:
    """Total length, flags with the offset in bytes, the sum over the header (0 where it is right), the payload."""
    length, _, fragment = struct.unpack(">HHH", frame[16:22])
    return length, fragment & 0xE000, (fragment & 0x1FFF) * 8, frame[34:]


def test_what_is_too_large_is_cut_in_two(guest: Loaded) -> None:
    payload = bytes(range(256)) * 6
    packet = ipv4("8.8.8.8", payload[:1480], protocol=17)
    verdict, head = guest.run(packet)
    assert verdict == PASS and head[:6] == REAL, "cut behind steering"
    assert headers(head) == (1396, 0x2000, 0, payload[:1376]) and total(head[14:34]) == 0
    verdict, rest = guest.run(packet, REST)
    assert verdict == PASS
    assert headers(rest) == (124, 0, 1376, payload[1376:1480]) and total(rest[14:34]) == 0


def test_a_fragment_is_cut_again(guest: Loaded) -> None:
    packet = ipv4("8.8.8.8", b"x" * 1480, protocol=17, fragment=0x2000 | 185)
    assert headers(guest.run(packet)[1])[:3] == (1396, 0x2000, 1480)
    assert headers(guest.run(packet, REST)[1])[:3] == (124, 0x2000, 1480 + 1376)


def test_what_may_not_be_cut_is_sent_back(guest: Loaded) -> None:
    packet = ipv4("8.8.8.8", b"payload:" + b"x" * 1472, protocol=17, fragment=0x4000)
    verdict, frame = guest.run(packet)
    assert verdict == REDIRECT
    assert frame[:14] == GUEST + REAL + b"\x08\x00"
    assert frame[14:34][9:10] == b"\x01" and frame[26:34] == ip("8.8.8.8") + ip("10.1.2.3") and total(frame[14:34]) == 0
    assert frame[34:36] == b"\x03\x04" and frame[38:42] == struct.pack(">HH", 0, 1400) and total(frame[34:]) == 0
    assert frame[42:] == packet[14:42]


def test_a_large_ipv6_packet_is_sent_back(guest: Loaded) -> None:
    packet = ipv6("2001:db8:9::1", b"payload:" + b"x" * 1400, protocol=17)
    verdict, frame = guest.run(packet)
    assert verdict == REDIRECT
    assert frame[:14] == GUEST + REAL + b"\x86\xdd"
    assert frame[14:22] == struct.pack(">IHBB", 6 << 28, 56, 58, 64)
    assert frame[22:54] == ip("2001:db8:9::1") + ip("2001:db8::5")
    assert frame[54:56] == b"\x02\x00" and frame[58:62] == struct.pack(">I", 1400)
    assert total(pseudo(frame[22:38], frame[38:54], 58, frame[54:])) == 0
    assert frame[62:] == packet[14:62]


@pytest.mark.parametrize(
    "frame", [ipv4("8.8.8.8", b"x" * 1380, to=SECOND), ipv6("2001:db8:9::1", b"x" * 1360, to=SECOND)]
)
def test_what_just_fits_is_left_alone(guest: Loaded, frame: bytes) -> None:
    assert guest.run(frame) == (PASS, frame)


@pytest.mark.parametrize("operation", [1, 2])
def test_the_next_hops_mac_is_followed_by_arp(wire: Loaded, operation: int) -> None:
    new = bytes.fromhex("020000000bad")
    frame = arp(operation, "169.254.1.1", "10.1.2.3", source=new)
    assert wire.run(frame) == (PASS, frame)
    assert [wire.mac(position) for position in range(3)] == [new, SECOND, REAL]
    wire.run(arp(2, "10.9.9.9", "10.9.9.9", source=b"\xff" * 6))
    assert wire.mac(1) == SECOND, "a group's address is nobody's"


def test_the_next_hops_mac_is_followed_by_neighbour_discovery(wire: Loaded) -> None:
    new = bytes.fromhex("020000000bad")
    advertisement = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + ip("fe80::99") + b"\x02\x01" + new
    wire.run(ipv6("ff02::1", advertisement, protocol=58, source="fe80::99"))
    assert wire.mac(2) == new
    wire.run(solicitation("2001:db8::5", source="fe80::99"))
    assert wire.mac(2) == GUEST


#: A router in a prefix that is answered for whole, as `ptp` leaves it, and a second way beside it.
BEHIND = Edge(
    own=("10.1.2.3",),
    router=ROUTER.hex(":"),
    answers=(Answer(network="10.1.2.0/24", mac=ROUTER.hex(":")),),
    hops=(Hop(address="10.1.2.1", mac=REAL.hex(":")), Hop(address="10.9.9.9", mac=SECOND.hex(":"))),
    steers=(Steer(network="0.0.0.0/0", hop=0), Steer(network="10.20.0.0/14", hop=1)),
)


@pytest.mark.parametrize("operation", [1, 2])
def test_the_guest_learns_the_virtual_router_only(operation: int) -> None:
    """A router that asks for the guest names itself, and the guest would go past the pod's routes to it."""
    frame = arp(operation, "10.1.2.1", "10.1.2.3", source=REAL)
    other = arp(operation, "10.1.2.9", "10.1.2.3", source=SECOND)
    with loaded(wire_side(BEHIND, Path()), BEHIND) as wire:
        assert wire.run(frame) == (PASS, frame[:22] + ROUTER + frame[28:])
        assert wire.mac(0) == REAL
        assert wire.run(other) == (PASS, other)
    with loaded(guest_side(BEHIND, Path(answer=1, wire=1)), BEHIND) as guest:
        answer = arp(2, "10.1.2.3", "10.1.2.1", to=ROUTER)
        assert guest.run(answer) == (PASS, REAL + answer[6:]), "and its answer finds the real one"
        elsewhere = arp(2, "10.1.2.3", "10.1.2.9", to=SECOND)
        assert guest.run(elsewhere) == (PASS, elsewhere)


def test_a_pinned_next_hop_is_not_followed() -> None:
    edge = Edge(hops=(Hop(address="169.254.1.1", mac=REAL.hex(":"), pinned=True),), steers=EDGE.steers[:1], mtu=1400)
    with loaded(wire_side(edge, Path()), edge) as wire:
        assert wire.map == -1, "there is nothing to remember"
        frame = arp(2, "169.254.1.1", "10.1.2.3")
        assert wire.run(frame) == (PASS, frame)


@pytest.mark.parametrize("onward", [None, 1])
def test_nothing_to_do_is_only_going_on(onward: int | None) -> None:
    for side in (guest_side, wire_side):
        with loaded(side(Edge(), Path(onward=onward)), Edge()) as made:
            frame = ipv4("8.8.8.8", b"x" * 20)
            assert made.run(frame) == (PASS if onward is None else REDIRECT, frame)


def test_what_the_kernel_says_of_a_wrong_program_is_kept() -> None:
    code = Assembler()
    code.exit()
    with pytest.raises(OSError, match="bpf: ") as caught:
        bpf.load_classifier(code.code(), "wrong")
    assert "R0 !read_ok" in caught.value.__notes__[0]
