"""NICs for the tests of families that know IPv4 and one gateway."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import strategies as st

from shim.network.view import GuestInterface

ETH0 = GuestInterface(
    name="eth0",
    mac="02:00:00:00:00:01",
    mtu=1450,
    address=IPv4Interface("10.1.2.3/29"),
    gateway=IPv4Address("10.1.2.1"),
)
NO_GATEWAY = GuestInterface(name="eth0", mac=ETH0.mac, mtu=1500, address=ETH0.address)
NO_ADDRESS = GuestInterface(name="eth0", mac=ETH0.mac, mtu=1500)
NET1 = GuestInterface(name="net1", mac="02:00:00:00:00:02", mtu=9000, address=IPv4Interface("192.168.7.9/24"))
#: Behind its gateway is everything, as behind ETH0's.
NET1_OUT = GuestInterface(name="net1", mac=NET1.mac, mtu=1500, address=NET1.address, gateway=IPv4Address("192.168.7.1"))
#: Behind its gateway is one network.
NET1_ROUTED = GuestInterface(
    name="net1",
    mac=NET1.mac,
    mtu=1500,
    address=NET1.address,
    gateway=IPv4Address("192.168.7.1"),
    routes=(IPv4Network("172.16.0.0/12"),),
)

#: What any command line can hold.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
#: Names of environment variables.
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
