"""Layouts out of a few words, for tests without a kernel."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import msgspec

from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Address, Layout, Link, Neighbour, Route
from shim.network.plan import Plan, make_plan

MAC = "02:00:5e:10:00:02"
ROUTER_MAC = "ee:ee:ee:ee:ee:ee"
LO = Link(index=1, name="lo", kind="", mac="", mtu=65536, flags=rt.IFF_UP | rt.IFF_LOOPBACK, hardware=772)
ETH0 = Link(index=2, name="eth0", kind="veth", mac=MAC, mtu=1500, flags=rt.IFF_UP, hardware=rt.ARPHRD_ETHER)
NET1 = msgspec.structs.replace(ETH0, index=3, name="net1", mac="02:00:5e:10:00:03")
SETTINGS = {"net/ipv6/conf/eth0/addr_gen_mode": "0", "net/ipv6/conf/eth0/disable_ipv6": "0"}


def address(text: str, **fields: Any) -> Address:
    ip, _, length = text.partition("/")
    values = {"link": 2, "address": ip, "prefix": int(length), "raw": b"\0" * 8, **fields}
    return Address(**values)


def route(destination: str, gateway: str = "", **fields: Any) -> Route:
    anywhere = {"default": "0.0.0.0/0", "default6": "::/0"}
    values = {
        "link": 2,
        "destination": anywhere.get(destination, destination),
        "kind": "unicast",
        "table": rt.RT_TABLE_MAIN,
        "protocol": 3,
        "scope": 0 if gateway else rt.RT_SCOPE_LINK,
        "gateway": gateway,
        "raw": b"\0" * 12,
        **fields,
    }
    return Route(**values)


def connected(text: str, **fields: Any) -> Route:
    interface = ip_interface(text)
    return route(str(interface.network), protocol=rt.RTPROT_KERNEL, source=str(interface.ip), **fields)


def pinned(where: str, mac: str = ROUTER_MAC, state: int = rt.NUD_PERMANENT, link: int = 2) -> Neighbour:
    return Neighbour(link=link, address=where, mac=mac, state=state)


def subnet(text: str = "10.88.0.2/16", gateway: str = "10.88.0.1", **fields: Any) -> Layout:
    values = {
        "links": (LO, ETH0),
        "addresses": (address(text),),
        "routes": (route("default", gateway), connected(text)),
        "sysctls": SETTINGS,
        **fields,
    }
    return Layout(**values)


def slash32(own: str = "10.1.2.3", **fields: Any) -> Layout:
    values = {
        "links": (LO, ETH0),
        "addresses": (address(f"{own}/32"),),
        "routes": (route("default", "169.254.1.1"), route("169.254.1.1/32")),
        "sysctls": SETTINGS,
        **fields,
    }
    return Layout(**values)


def plan(layout: Layout, **options: Any) -> Plan:
    return make_plan(layout, **{"seed": "sandbox", **options})
