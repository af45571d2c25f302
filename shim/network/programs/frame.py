"""Where things are in a frame, and numbers that stand there.

Frames are Ethernet (IEEE 802.3); ARP is RFC 826, neighbour discovery RFC 4861, IPv4 RFC 791, IPv6 RFC 8200, ICMP RFC
792 and RFC 4443, TCP RFC 9293. Offsets are from the start of the frame, in bytes.
"""

from __future__ import annotations

ETHERNET = 14
SOURCE_MAC = 6
PROTOCOL = 12
ARP, IPV4, IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"

# ARP over Ethernet and IPv4: operation, sender's MAC and address, target's MAC and address; the whole frame's length.
ARP_OPERATION, ARP_SENDER_MAC, ARP_SENDER, ARP_TARGET_MAC, ARP_TARGET, ARP_LENGTH = 20, 22, 28, 32, 38, 42
ARP_REQUEST, ARP_REPLY = b"\x00\x01", b"\x00\x02"

# IPv4: total length, flags and fragment offset, protocol, header checksum, addresses; a header without options.
IPV4_TOTAL, IPV4_FRAGMENT, IPV4_PROTOCOL, IPV4_CHECKSUM, IPV4_SOURCE, IPV4_DESTINATION = 16, 20, 23, 24, 26, 30
IPV4_HEADER = 20
DONT_FRAGMENT, MORE_FRAGMENTS, FRAGMENT_OFFSET = 0x4000, 0x2000, 0x1FFF

# IPv6: payload length, next header, hop limit, addresses.
IPV6_PAYLOAD, IPV6_NEXT, IPV6_HOPS, IPV6_SOURCE, IPV6_DESTINATION = 18, 20, 21, 22, 38
IPV6_HEADER = 40

# Neighbour discovery over IPv6: type, target, the first option; lengths without and with one option.
ND_TYPE, ND_TARGET, ND_OPTION, ND_LENGTH, ND_WITH_OPTION = 54, 62, 78, 78, 86
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS = 1, 2
SOLICITED_OVERRIDE = b"\x60\x00\x00\x00"

ICMP, TCP, ICMP6 = 1, 6, 58
UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4
PACKET_TOO_BIG = 2


def mac_bytes(text: str) -> bytes:
    """Six bytes."""
    return bytes.fromhex(text.replace(":", ""))
