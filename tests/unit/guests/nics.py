"""NICs as the pods of the tests have them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

from shim.guests.base import Dns
from shim.network.view import GuestInterface

FOUR = GuestInterface(
    name="eth0",
    mac="02:00:00:00:00:01",
    mtu=1450,
    address=IPv4Interface("10.1.2.3/29"),
    gateway=IPv4Address("10.1.2.1"),
)
#: As FOUR, where the gateway leads to some networks only.
ROUTED = GuestInterface(
    name="eth0",
    mac=FOUR.mac,
    mtu=1500,
    address=FOUR.address,
    gateway=FOUR.gateway,
    routes=(IPv4Network("172.16.0.0/12"),),
)
SIX = GuestInterface(
    name="eth0", mac=FOUR.mac, mtu=1280, address6=IPv6Interface("fd00::5/126"), gateway6=IPv6Address("fd00::6")
)
DUAL = GuestInterface(
    name="eth0",
    mac=FOUR.mac,
    mtu=1450,
    address=FOUR.address,
    gateway=FOUR.gateway,
    address6=IPv6Interface("fd00:10::5/64"),
    gateway6=IPv6Address("fe80::1"),
)
NOTHING = GuestInterface(name="eth0", mac=FOUR.mac, mtu=1500)
#: A second one, without a gateway.
SECOND = GuestInterface(name="net1", mac="02:00:00:00:00:02", mtu=9000, address=IPv4Interface("192.168.7.9/24"))

DNS = Dns(
    servers=("10.96.0.10", "fd00::a", "1.1.1.1", "8.8.8.8"),
    searches=("default.svc.cluster.local", "svc.cluster.local"),
    options=("ndots:5",),
)
