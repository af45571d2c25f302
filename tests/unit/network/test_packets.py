"""Frames built and parsed: vectors from the RFCs' own figures, sums checked by another program, and any bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.network.addressing.mac import link_local
from shim.network.checking import packets
from shim.network.checking.packets import Echoed, Resolved, Said

GUEST, ROUTER = "02:00:5e:10:00:02", "ee:ee:ee:ee:ee:ee"
OWN, HOP = IPv4Address("10.88.0.2"), IPv4Address("10.88.0.1")
OWN6, HOP6 = IPv6Address("2001:db8::2"), IPv6Address("fe80::1")


def test_an_arp_request_by_rfc_826() -> None:
    assert packets.arp_request(GUEST, OWN, HOP).hex() == (
        "ffffffffffff" "02005e100002" "0806" "0001080006040001" "02005e100002" "0a580002" "000000000000" "0a580001"
    )  # fmt: skip
    assert packets.arp_request(GUEST, packets.NOBODY, HOP, ROUTER)[28:32] == bytes(4)
    assert packets.arp_request(GUEST, packets.NOBODY, HOP, ROUTER)[:6] == b"\xee" * 6


def test_a_solicitation_goes_to_the_targets_group() -> None:
    frame = packets.solicitation(GUEST, OWN6, IPv6Address("2001:db8::12:3456"))
    assert frame[:6].hex(":") == "33:33:ff:12:34:56"
    assert frame[38:54] == IPv6Address("ff02::1:ff12:3456").packed
    assert frame[21] == 255 and frame[54] == 135
    assert frame[-8:] == b"\x01\x01" + bytes.fromhex(GUEST.replace(":", ""))
    assert packets.solicitation(GUEST, OWN6, HOP6, ROUTER)[:6] == b"\xee" * 6


def summed(*parts: bytes) -> int:
    """The one's complement sum of everything, its checksum included: 0xFFFF where that is right (RFC 1071)."""
    data = b"".join(parts)
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[place : place + 2], "big") for place in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(1, 255))
def test_checksums_of_ipv4(sender: IPv4Address, target: IPv4Address, number: int, sequence: int, hops: int) -> None:
    frame = packets.echo_request(GUEST, ROUTER, sender, target, number, sequence, hops)
    assert summed(frame[14:34]) == 0xFFFF and summed(frame[34:]) == 0xFFFF
    assert frame[22] == hops and int.from_bytes(frame[16:18], "big") == len(frame) - 14


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 0xFFFF))
def test_checksums_of_ipv6(sender: IPv6Address, target: IPv6Address, number: int) -> None:
    for frame in (
        packets.echo_request(GUEST, ROUTER, sender, target, number, 1),
        packets.solicitation(GUEST, sender, target),
    ):
        pseudo = frame[22:54] + (len(frame) - 54).to_bytes(4, "big") + (58).to_bytes(4, "big")
        assert summed(pseudo, frame[54:]) == 0xFFFF
        assert int.from_bytes(frame[18:20], "big") == len(frame) - 54


def test_an_arp_reply_is_read_and_a_request_is_not() -> None:
    request = packets.arp_request(ROUTER, HOP, OWN, GUEST)
    assert packets.parse(request) is None
    reply = request[:21] + b"\x02" + request[22:]
    assert packets.parse(reply) == Resolved(HOP, ROUTER, ROUTER, GUEST)
    assert packets.parse(reply[:6] + b"\x02" * 6 + reply[12:]) == Resolved(HOP, ROUTER, "02:02:02:02:02:02", GUEST)


def advertisement(*options: bytes) -> bytes:
    head = bytes.fromhex(GUEST.replace(":", "") + ROUTER.replace(":", "") + "86dd")
    message = bytes((136, 0, 0, 0)) + b"\x60\0\0\0" + HOP6.packed + b"".join(options)
    packet = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((58, 255)) + HOP6.packed + OWN6.packed
    return head + packet + message


def test_an_advertisement_with_its_option_and_without() -> None:
    own = b"\x02\x01" + bytes.fromhex("0a0000000001")
    assert packets.parse(advertisement(own)) == Resolved(HOP6, "0a:00:00:00:00:01", ROUTER, GUEST)
    assert packets.parse(advertisement(b"\x0e\x01" + bytes(6), own)) == Resolved(
        HOP6, "0a:00:00:00:00:01", ROUTER, GUEST
    )
    assert packets.parse(advertisement()) == Resolved(HOP6, ROUTER, ROUTER, GUEST)
    assert packets.parse(advertisement(b"\x0e\x00" + bytes(6))) == Resolved(HOP6, ROUTER, ROUTER, GUEST), (
        "a length of 0 ends it"
    )


@pytest.mark.parametrize(("kind", "said"), [(3, Said.UNREACHABLE), (11, Said.EXCEEDED)])
@pytest.mark.parametrize("options", [0, 4])
def test_an_error_is_known_by_the_packet_it_quotes(kind: int, said: Said, options: int) -> None:
    asked = packets.echo_request(GUEST, ROUTER, OWN, IPv4Address("192.0.2.1"), 0x1234, 7)
    quoted = bytes((0x45 + options // 4,)) + asked[15:34] + bytes(options) + asked[34:42]
    answer = packets.echo_request(ROUTER, GUEST, HOP, OWN, 0, 0)[:34] + bytes((kind, 0, 0, 0, 0, 0, 0, 0)) + quoted
    assert packets.parse(answer) == Echoed(said, 4, 0x1234, HOP, GUEST)
    assert packets.parse(answer[:-6]) is None, "cut short"
    of_tcp = answer[:51] + b"\x06" + answer[52:]
    assert packets.parse(of_tcp) is None, "an error about another packet"


@pytest.mark.parametrize(("kind", "said"), [(1, Said.UNREACHABLE), (3, Said.EXCEEDED)])
def test_the_same_for_ipv6(kind: int, said: Said) -> None:
    asked = packets.echo_request(GUEST, ROUTER, OWN6, IPv6Address("2001:db8::1"), 0x1234, 7)
    answer = (
        packets.echo_request(ROUTER, GUEST, HOP6, OWN6, 0, 0)[:54] + bytes((kind, 0, 0, 0, 0, 0, 0, 0)) + asked[14:]
    )
    assert packets.parse(answer) == Echoed(said, 6, 0x1234, HOP6, GUEST)


@pytest.mark.parametrize(
    ("sender", "target", "place", "kind"), [(HOP, OWN, 34, b"\x00"), (HOP6, OWN6, 54, b"\x81")], ids=["ipv4", "ipv6"]
)
def test_a_reply_names_its_sender_and_the_macs_it_was_sent_to(
    sender: IPv4Address | IPv6Address, target: IPv4Address | IPv6Address, place: int, kind: bytes
) -> None:
    request = packets.echo_request(ROUTER, GUEST, sender, target, 99, 1)
    assert packets.parse(request) is None, "a request is no answer"
    reply = request[:place] + kind + request[place + 1 :]
    assert packets.parse(reply) == Echoed(Said.REPLY, sender.version, 99, sender, GUEST)


@given(st.binary(max_size=160), st.sampled_from([b"\x08\x06", b"\x08\x00", b"\x86\xdd", b"\x88\xcc"]))
def test_no_frame_is_too_strange_to_parse(rest: bytes, kind: bytes) -> None:
    packets.parse(rest)
    packets.parse(bytes(12) + kind + rest)
    packets.parse(bytes(12) + kind + b"\x45" + bytes(5) + b"\x3a" + bytes(2) + b"\x01" + rest)


def test_link_local_of_a_mac() -> None:
    assert link_local("02:00:5e:10:00:02") == IPv6Address("fe80::5eff:fe10:2")
