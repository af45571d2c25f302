"""NICs with IPv6 addresses, and a cluster's name servers of both versions."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface

from shim.guests.base import Dns
from shim.network.view import GuestInterface
from tests.unit.guests.interfaces import ETH0

SIX = GuestInterface(
    name="eth0", mac=ETH0.mac, mtu=1280, address6=IPv6Interface("fd00::5/126"), gateway6=IPv6Address("fd00::6")
)
DUAL = GuestInterface(
    name="eth0",
    mac=ETH0.mac,
    mtu=1450,
    address=ETH0.address,
    gateway=ETH0.gateway,
    address6=IPv6Interface("fd00:10::5/64"),
    gateway6=IPv6Address("fe80::1"),
)
DNS = Dns(
    servers=("10.96.0.10", "fd00::a", "1.1.1.1", "8.8.8.8"),
    searches=("default.svc.cluster.local", "svc.cluster.local"),
    options=("ndots:5",),
)
