"""Layouts that the tests' kernel cannot build: link messages as the drivers fill them, made by hand.

The kernel of the machines that run these tests has no 802.1Q, ipvlan, netkit, dummy, IP-in-IP, WireGuard or InfiniBand
driver, and no second network card to give away. What each driver says of itself is in its source, which is named with
each; what cannot be shown here is that frames then flow.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from shim.network.addressing.interfaces import DATAPLANES
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.rtnetlink import Family, Ifa, Ifla, Kind, Message, Rta
from shim.network.layout import Dumps, Layout, from_messages

OWN, PREFIX, GATEWAY = "10.88.0.2", 24, "10.88.0.1"
MAC = "02:00:5e:10:00:02"
_UP = rt.IFF_UP | 0x10000 | 0x40  # and IFF_LOWER_UP, IFF_RUNNING (linux/if.h)
_ETHERNET = _UP | 0x2 | 0x1000  # IFF_BROADCAST, IFF_MULTICAST
_POINT_TO_POINT = 0x10
_ARPHRD_INFINIBAND, _ARPHRD_TUNNEL, _ARPHRD_LOOPBACK, _ARPHRD_SIT, _ARPHRD_NONE = 32, 768, 772, 776, 0xFFFE
_NEWLINK_NETNSID = 37  # IFLA_LINK_NETNSID: the parent, or the peer, is in another namespace


@dataclass(frozen=True)
class ByHand:
    """`candidates` are the interfaces that a guest can be given; `refused` says that no dataplane suits
    eth0; `refusals` are patterns of the reasons, by dataplane; `why` says why it is made by hand."""

    layout: Layout
    why: str
    candidates: tuple[str, ...] = ("eth0",)
    refused: bool = False
    refusals: Mapping[str, str] = field(default_factory=dict)


def link(
    index: int,
    name: str,
    kind: str = "",
    *,
    data: bytes = b"",
    mac: str = MAC,
    flags: int = _ETHERNET,
    hardware: int = rt.ARPHRD_ETHER,
    parent: int = 0,
    master: int = 0,
    mtu: int = 1500,
) -> Message:
    """RTM_NEWLINK as rtnl_fill_ifinfo (net/core/rtnetlink.c) fills it, without what nobody asks for."""
    body = rt.LINK.pack(0, hardware, index, flags, 0) + rt.text(Ifla.IFNAME, name) + rt.u32(Ifla.MTU, mtu)
    if master:
        body += rt.u32(Ifla.MASTER, master)
    body += rt.attribute(Ifla.ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if parent:
        body += rt.u32(Ifla.LINK, parent) + rt.u32(_NEWLINK_NETNSID, 0)
    if kind:
        inside = [rt.text(Ifla.INFO_KIND, kind)] + ([rt.nested(Ifla.INFO_DATA, data)] if data else [])
        body += rt.nested(Ifla.LINKINFO, *inside)
    return Message(Kind.NEWLINK, 0, 0, body)


def lan(*links: Message) -> Layout:
    """A LAN's address and routes on the interface with index 2."""
    own, gateway = (bytes(map(int, text.split("."))) for text in (OWN, GATEWAY))
    address = rt.ADDRESS.pack(Family.INET, PREFIX, 0x80, rt.RT_SCOPE_UNIVERSE, 2)
    address += rt.attribute(Ifa.ADDRESS, own) + rt.attribute(Ifa.LOCAL, own) + rt.text(Ifa.LABEL, "eth0")
    main, unicast = rt.RT_TABLE_MAIN, 1
    everything = rt.ROUTE.pack(Family.INET, 0, 0, 0, main, 3, rt.RT_SCOPE_UNIVERSE, unicast, 0)
    everything += rt.attribute(Rta.GATEWAY, gateway) + rt.u32(Rta.OIF, 2)
    connected = rt.ROUTE.pack(Family.INET, PREFIX, 0, 0, main, rt.RTPROT_KERNEL, rt.RT_SCOPE_LINK, unicast, 0)
    connected += rt.attribute(Rta.DST, own[:3] + b"\0") + rt.attribute(Rta.PREFSRC, own) + rt.u32(Rta.OIF, 2)
    loopback = link(1, "lo", mac="00:00:00:00:00:00", flags=_UP | rt.IFF_LOOPBACK, hardware=_ARPHRD_LOOPBACK)
    return from_messages(
        Dumps(
            links=[loopback, *links],
            addresses=[Message(Kind.NEWADDR, 0, 0, address)],
            routes=[Message(Kind.NEWROUTE, 0, 0, each) for each in (everything, connected)],
        )
    )


def _ipvlan(mode: int, flags: int) -> Layout:
    # IFLA_IPVLAN_MODE is a 16-bit number, IFLA_IPVLAN_FLAGS another (drivers/net/ipvlan/ipvlan_main.c).
    data = rt.attribute(Ifla.IPVLAN_MODE, mode.to_bytes(2, sys.byteorder)) + rt.attribute(2, b"\0\0")
    return lan(link(2, "eth0", "ipvlan", data=data, flags=flags, parent=4))


def _netkit(mode: int, mac: str, flags: int) -> Layout:
    # IFLA_NETKIT_POLICY, _PEER_POLICY, _MODE, in the order of enum (linux/if_link.h, drivers/net/netkit.c).
    data = rt.u32(3, 0) + rt.u32(4, 0) + rt.u32(5, mode)
    return lan(link(2, "eth0", "netkit", data=data, mac=mac, flags=flags, parent=9))


def _everywhere(pattern: str) -> dict[str, str]:
    return dict.fromkeys(DATAPLANES, pattern)


_ETH0 = link(2, "eth0", "veth", parent=7)
_NO_DRIVER = "the kernel has no {} driver"
LAYOUTS: dict[str, ByHand] = {
    "vlan": ByHand(
        # IFLA_VLAN_ID (linux/if_link.h); the parent stays on the node.
        lan(link(2, "eth0", "vlan", data=rt.attribute(1, (5).to_bytes(2, sys.byteorder)), parent=3)),
        _NO_DRIVER.format("802.1Q"),
    ),
    "ipvlan-l2": ByHand(
        _ipvlan(0, _ETHERNET),
        _NO_DRIVER.format("ipvlan"),
        refusals={"bridge": "ipvlan", "macvtap": "ipvlan"},
    ),
    "ipvlan-l3": ByHand(
        _ipvlan(1, _ETHERNET | rt.IFF_NOARP),
        _NO_DRIVER.format("ipvlan"),
        refusals={"bridge": "ipvlan", "macvtap": "ipvlan"},
    ),
    "ipvlan-l3s": ByHand(
        _ipvlan(2, _ETHERNET | rt.IFF_NOARP),
        _NO_DRIVER.format("ipvlan"),
        refused=True,
        refusals=_everywhere("ipvlan in mode l3s"),
    ),
    "netkit-l3": ByHand(
        _netkit(1, "00:00:00:00:00:00", _ETHERNET | rt.IFF_NOARP),
        _NO_DRIVER.format("netkit"),
        refused=True,
        refusals=_everywhere("netkit in its L3 mode"),
    ),
    "netkit-l2": ByHand(_netkit(0, MAC, _ETHERNET), _NO_DRIVER.format("netkit")),
    "sr-iov": ByHand(
        # A virtual function or a host's device has no driver's name here, as rtnl_link_ops are for software devices.
        # It filters by MAC in hardware, and its MAC is the host's to change: redirecting leaves both alone.
        lan(link(2, "eth0")),
        "the machine has no network card to give away",
    ),
    "beside tunnels": ByHand(
        # What loading ipip, sit and dummy leaves in every namespace, Calico's among them.
        lan(
            link(3, "tunl0", "ipip", mac="00:00:00:00", flags=_UP | rt.IFF_NOARP, hardware=_ARPHRD_TUNNEL, mtu=1480),
            link(4, "sit0", "sit", mac="00:00:00:00", flags=rt.IFF_NOARP, hardware=_ARPHRD_SIT, mtu=1480),
            link(5, "dummy0", "dummy", mac="02:00:00:00:00:05", flags=_UP | rt.IFF_NOARP | 0x2),
            link(6, "ifb0", "ifb", mac="02:00:00:00:00:06", flags=_UP | rt.IFF_NOARP | 0x2),
            _ETH0,
        ),
        _NO_DRIVER.format("IP-in-IP, sit, dummy or ifb"),
    ),
    "wireguard": ByHand(
        lan(link(2, "eth0", "wireguard", mac="", flags=_UP | _POINT_TO_POINT | rt.IFF_NOARP, hardware=_ARPHRD_NONE)),
        _NO_DRIVER.format("WireGuard"),
        refused=True,
        refusals=_everywhere("is not Ethernet"),
    ),
    "infiniband": ByHand(
        lan(link(2, "eth0", "ipoib", mac=":".join(["00"] * 20), hardware=_ARPHRD_INFINIBAND, mtu=2044)),
        _NO_DRIVER.format("InfiniBand"),
        refused=True,
        refusals=_everywhere("is not Ethernet"),
    ),
    "bond of the host's": ByHand(lan(link(2, "eth0", "bond", flags=_ETHERNET | 0x400)), _NO_DRIVER.format("bonding")),
    "port of a bond": ByHand(
        lan(
            link(2, "eth0", flags=_ETHERNET | 0x800, master=8),
            link(8, "bond0", "bond", flags=_ETHERNET | 0x400),
        ),
        _NO_DRIVER.format("bonding"),
        candidates=("eth0", "bond0"),
        refused=True,
        refusals=_everywhere("already a port"),
    ),
}
