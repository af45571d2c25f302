"""Frames that ask a neighbour who it is, and what comes back. Pure: bytes in, bytes out; no socket is touched here.

Ethernet is IEEE 802.3; ARP is RFC 826, and a request that changes nobody's table RFC 5227; neighbour discovery is RFC
4861; ICMP is RFC 792 and ICMPv6 RFC 4443. All numbers are in network order. MACs are the usual colon-separated text.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from shim.network.programs.frame import mac_bytes

BROADCAST = "ff:ff:ff:ff:ff:ff"
#: As an ARP request's sender: the request asks and tells nothing (RFC 5227, "ARP Probe").
NOBODY = IPv4Address(0)

_ETHERNET = struct.Struct("!6s6sH")  # destination, source, type
_ARP = struct.Struct("!HHBBH6s4s6s4s")  # hardware, protocol, their lengths, operation, sender, target
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, and an echo's identifier and sequence number
_DISCOVERY = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target

_TYPE_ARP, _TYPE_IPV4, _TYPE_IPV6 = 0x0806, 0x0800, 0x86DD
_REQUEST, _REPLY = 1, 2
_PROTOCOL_ICMP, _PROTOCOL_ICMP6 = 1, 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_ECHO = {4: 8, 6: 128}
_PAYLOAD = b"unikernel-shim check"


class Said(StrEnum):
    """What an echo request can bring back."""

    REPLY = "reply"
    UNREACHABLE = "unreachable"
    EXCEEDED = "time exceeded"


_SAID = {
    4: {0: Said.REPLY, 3: Said.UNREACHABLE, 11: Said.EXCEEDED},
    6: {129: Said.REPLY, 1: Said.UNREACHABLE, 3: Said.EXCEEDED},
}


class Resolved(NamedTuple):
    """An ARP reply or a neighbour advertisement: `address` is at `mac`; `source` is the MAC that sent the frame, and
    `destination` the one it is for."""

    address: IPv4Address | IPv6Address
    mac: str
    source: str
    destination: str


class Echoed(NamedTuple):
    """What came back for the echo request of this identifier, from `sender`, in a frame for the MAC `destination`."""

    said: Said
    version: int
    identifier: int
    sender: IPv4Address | IPv6Address
    destination: str


def arp_request(source: str, sender: IPv4Address, target: IPv4Address, to: str = BROADCAST) -> bytes:
    """Who has `target`? Tell `sender` at the MAC `source`, or nobody's table where that is NOBODY."""
    body = _ARP.pack(1, _TYPE_IPV4, 6, 4, _REQUEST, mac_bytes(source), sender.packed, bytes(6), target.packed)
    return _ETHERNET.pack(mac_bytes(to), mac_bytes(source), _TYPE_ARP) + body


def solicitation(source: str, sender: IPv6Address, target: IPv6Address, to: str = "") -> bytes:
    """The same for IPv6, to the target's solicited-node group (RFC 4291, 2.7.1), by the frame's MAC `to` or to all."""
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)
    message = (
        _DISCOVERY.pack(_SOLICITATION, 0, 0, 0, target.packed) + bytes((_SOURCE_LINK_ADDRESS, 1)) + mac_bytes(source)
    )
    # A hop limit of 255 shows that no router has passed it on.
    packet = _ipv6(sender, group, _summed6(sender, group, message), 255)
    return _ETHERNET.pack(mac_bytes(to or _group_mac(group)), mac_bytes(source), _TYPE_IPV6) + packet


def echo_request(
    source: str,
    to: str,
    sender: IPv4Address | IPv6Address,
    target: IPv4Address | IPv6Address,
    identifier: int,
    sequence: int,
    hops: int = 1,
) -> bytes:
    """A ping that lives for `hops` routers. `sender` and `target` are of one family."""
    message = _ICMP.pack(_ECHO[sender.version], 0, 0, identifier, sequence) + _PAYLOAD
    if isinstance(sender, IPv4Address) and isinstance(target, IPv4Address):
        packet = _ipv4(sender, target, _summed(message), hops)
        return _ETHERNET.pack(mac_bytes(to), mac_bytes(source), _TYPE_IPV4) + packet
    assert isinstance(sender, IPv6Address) and isinstance(target, IPv6Address)
    packet = _ipv6(sender, target, _summed6(sender, target, message), hops)
    return _ETHERNET.pack(mac_bytes(to), mac_bytes(source), _TYPE_IPV6) + packet


def parse(frame: bytes) -> Resolved | Echoed | None:
    """What a frame answers; None for a frame that answers nothing asked here. Checksums are left to the kernels."""
    try:
        destination, source, kind = _ETHERNET.unpack_from(frame)
        if kind == _TYPE_ARP:
            return _arp(frame[_ETHERNET.size :], destination.hex(":"), source.hex(":"))
        if kind == _TYPE_IPV4:
            return _icmp(frame[_ETHERNET.size :], destination.hex(":"))
        if kind == _TYPE_IPV6:
            return _icmp6(frame[_ETHERNET.size :], destination.hex(":"), source.hex(":"))
    except (struct.error, IndexError):  # cut short
        return None
    return None


def _arp(body: bytes, destination: str, source: str) -> Resolved | None:
    hardware, protocol, _, _, operation, mac, address, _, _ = _ARP.unpack_from(body)
    if (hardware, protocol, operation) != (1, _TYPE_IPV4, _REPLY):
        return None
    return Resolved(IPv4Address(address), mac.hex(":"), source, destination)


def _icmp(packet: bytes, destination: str) -> Echoed | None:
    head = _IPV4.unpack_from(packet)
    if head[6] != _PROTOCOL_ICMP:
        return None
    return _echoed(4, packet[_header_length(packet) :], ip_address(head[8]), destination)


def _icmp6(packet: bytes, destination: str, source: str) -> Resolved | Echoed | None:
    _, _, following, _, sender, _ = _IPV6.unpack_from(packet)
    if following != _PROTOCOL_ICMP6:
        return None
    message = packet[_IPV6.size :]
    if message[0] == _ADVERTISEMENT:
        target = IPv6Address(_DISCOVERY.unpack_from(message)[4])
        return Resolved(
            target, _option(message[_DISCOVERY.size :], _TARGET_LINK_ADDRESS) or source, source, destination
        )
    return _echoed(6, message, IPv6Address(sender), destination)


def _echoed(version: int, message: bytes, sender: IPv4Address | IPv6Address, destination: str) -> Echoed | None:
    said = _SAID[version].get(message[0])
    if said is None:
        return None
    if said is not Said.REPLY:
        # An error quotes the packet that it is about, from its IP header on (RFC 792; RFC 4443, 3).
        quoted = message[_ICMP.size :]
        if (version == 4 and quoted[9] != _PROTOCOL_ICMP) or (version == 6 and quoted[6] != _PROTOCOL_ICMP6):
            return None
        message = quoted[_header_length(quoted) if version == 4 else _IPV6.size :]
        if message[0] != _ECHO[version]:
            return None
    return Echoed(said, version, _ICMP.unpack_from(message)[3], sender, destination)


def _option(options: bytes, wanted: int) -> str:
    """A neighbour discovery message's option of one link-layer address, or ""."""
    while len(options) >= 8 and options[1]:
        if options[0] == wanted:
            return options[2:8].hex(":")
        options = options[8 * options[1] :]
    return ""


def _header_length(packet: bytes) -> int:
    return (packet[0] & 0x0F) * 4


def _ipv4(sender: IPv4Address, target: IPv4Address, message: bytes, hops: int) -> bytes:
    head = _IPV4.pack(0x45, 0, _IPV4.size + len(message), 0, 0, hops, _PROTOCOL_ICMP, 0, sender.packed, target.packed)
    return head[:10] + _checksum(head).to_bytes(2, "big") + head[12:] + message


def _ipv6(sender: IPv6Address, target: IPv6Address, message: bytes, hops: int) -> bytes:
    return _IPV6.pack(6 << 28, len(message), _PROTOCOL_ICMP6, hops, sender.packed, target.packed) + message


def _summed(message: bytes, pseudo: bytes = b"") -> bytes:
    return message[:2] + _checksum(pseudo + message).to_bytes(2, "big") + message[4:]


def _summed6(sender: IPv6Address, target: IPv6Address, message: bytes) -> bytes:
    """ICMPv6's sum covers a pseudo-header (RFC 8200, 8.1)."""
    return _summed(message, sender.packed + target.packed + struct.pack("!II", len(message), _PROTOCOL_ICMP6))


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _group_mac(group: IPv6Address) -> str:
    """RFC 2464, 7."""
    return (b"\x33\x33" + group.packed[12:]).hex(":")
