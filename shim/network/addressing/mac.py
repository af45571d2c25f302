"""MACs that are the pod's own."""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Address

from shim.network.programs.frame import mac_bytes


def derived_mac(seed: str, role: str) -> str:
    """A MAC that is the same for the same pod and role, and different for every pod: a constant would meet itself on
    the wire."""
    return locally_administered(hashlib.sha256(f"{seed}/{role}".encode()).digest())


def locally_administered(chosen: bytes) -> str:
    """A locally administered unicast MAC (IEEE 802, bits 1 and 0 of the first byte) of the first six bytes."""
    return bytes(((chosen[0] & 0xFC) | 0x02, *chosen[1:6])).hex(":")


def link_local(mac: str) -> IPv6Address:
    """The link-local address that a MAC stands for (RFC 4291, appendix A)."""
    octets = mac_bytes(mac)
    identifier = bytes((octets[0] ^ 0x02, octets[1], octets[2], 0xFF, 0xFE, *octets[3:]))
    return IPv6Address(bytes.fromhex("fe80000000000000") + identifier)
