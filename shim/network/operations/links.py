"""Links: made, changed, joined, removed."""

from __future__ import annotations

from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.netlink import Request
from shim.network.kernel.rtnetlink import Family, Flag, Ifla, Kind
from shim.network.operations.base import ABSENT, NetlinkOperation, link_message, mac_bytes


class SetMac(NetlinkOperation, frozen=True):
    """Change an interface's link-layer address."""

    index: int
    mac: str

    def describe(self) -> str:
        return f"set {self.link} to MAC {self.mac}"

    def encode(self) -> tuple[Request, ...]:
        body = link_message(self.index) + rt.attribute(Ifla.ADDRESS, mac_bytes(self.mac, self.describe()))
        return (Request(Kind.SETLINK, 0, body, self.describe()),)


class SetMtu(NetlinkOperation, frozen=True):
    """Change an interface's MTU, in bytes."""

    index: int
    mtu: int

    def describe(self) -> str:
        return f"set {self.link} to MTU {self.mtu}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, link_message(self.index) + rt.u32(Ifla.MTU, self.mtu), self.describe()),)


class SetAlias(NetlinkOperation, frozen=True):
    """Change the words that an interface carries for people, by which our plumbing is recognised; "" for none."""

    index: int
    alias: str

    def describe(self) -> str:
        return f"mark {self.link} as {self.alias}" if self.alias else f"take the mark off {self.link}"

    def encode(self) -> tuple[Request, ...]:
        # An alias of no bytes at all removes it (dev_set_alias in net/core/dev.c).
        alias = rt.text(Ifla.IFALIAS, self.alias) if self.alias else rt.attribute(Ifla.IFALIAS, b"")
        return (Request(Kind.SETLINK, 0, link_message(self.index) + alias, self.describe()),)


class SetUp(NetlinkOperation, frozen=True):
    """Bring an interface up."""

    index: int

    def describe(self) -> str:
        return f"bring {self.link} up"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(0, 0, self.index, rt.IFF_UP, rt.IFF_UP)
        return (Request(Kind.NEWLINK, 0, body, self.describe()),)


class SetAllMulticast(NetlinkOperation, frozen=True):
    """Have an interface take every multicast frame, or only those of groups that somebody in the namespace joined."""

    index: int
    on: bool

    def describe(self) -> str:
        return f"have {self.link} take {'all multicast' if self.on else 'the multicast of its own groups'}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(0, 0, self.index, rt.IFF_ALLMULTI if self.on else 0, rt.IFF_ALLMULTI)
        return (Request(Kind.NEWLINK, 0, body, self.describe()),)


class CreateBridge(NetlinkOperation, frozen=True):
    """Make a bridge with that interface index: down, and not snooping multicast."""

    index: int
    mac: str
    mtu: int

    def describe(self) -> str:
        return f"create bridge {self.link} with MAC {self.mac} and MTU {self.mtu}"

    def encode(self) -> tuple[Request, ...]:
        body = b"".join(
            (
                link_message(self.index),
                rt.text(Ifla.IFNAME, self.link),
                rt.u32(Ifla.MTU, self.mtu),
                rt.attribute(Ifla.ADDRESS, mac_bytes(self.mac, self.describe())),
                rt.nested(
                    Ifla.LINKINFO,
                    rt.text(Ifla.INFO_KIND, "bridge"),
                    rt.nested(Ifla.INFO_DATA, rt.u8(Ifla.BR_MCAST_SNOOPING, 0)),
                ),
            )
        )
        return (Request(Kind.NEWLINK, Flag.CREATE | Flag.EXCL, body, self.describe()),)


class CreateMacvtap(NetlinkOperation, frozen=True):
    """Make a macvtap with that interface index on the interface with the index `parent`, which it takes over whole
    (passthru): both have one MAC, and every frame goes through it.

    It takes all multicast from the beginning, as it cannot know the guest's groups, among them those of neighbour
    discovery. Set when it is up, that would stay on the parent for good (macvlan_stop does not take it back).
    """

    index: int
    parent: int
    mtu: int

    def describe(self) -> str:
        return f"create macvtap {self.link} with MTU {self.mtu}"

    def encode(self) -> tuple[Request, ...]:
        body = b"".join(
            (
                rt.LINK.pack(0, 0, self.index, rt.IFF_ALLMULTI, rt.IFF_ALLMULTI),
                rt.text(Ifla.IFNAME, self.link),
                rt.u32(Ifla.LINK, self.parent),
                rt.u32(Ifla.MTU, self.mtu),
                rt.nested(
                    Ifla.LINKINFO,
                    rt.text(Ifla.INFO_KIND, "macvtap"),
                    rt.nested(Ifla.INFO_DATA, rt.u32(Ifla.MACVLAN_MODE, rt.MACVLAN_MODE_PASSTHRU)),
                ),
            )
        )
        return (Request(Kind.NEWLINK, Flag.CREATE | Flag.EXCL, body, self.describe()),)


class DelLink(NetlinkOperation, frozen=True):
    """Remove an interface, found by name: its index may belong to another by now."""

    settled = ABSENT

    def describe(self) -> str:
        return f"remove {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELLINK, 0, link_message(0) + rt.text(Ifla.IFNAME, self.link), self.describe()),)


class Enslave(NetlinkOperation, frozen=True):
    """Make an interface a port of a bridge."""

    index: int
    master: int
    bridge: str

    def describe(self) -> str:
        return f"make {self.link} a port of {self.bridge}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, link_message(self.index) + rt.u32(Ifla.MASTER, self.master), self.describe()),)


class Release(NetlinkOperation, frozen=True):
    """Take an interface out of its bridge; nothing happens where it is in none."""

    index: int

    def describe(self) -> str:
        return f"take {self.link} out of its bridge"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.SETLINK, 0, link_message(self.index) + rt.u32(Ifla.MASTER, 0), self.describe()),)


class StopLearning(NetlinkOperation, frozen=True):
    """Keep a bridge from learning MACs at this port (IFLA_BRPORT_LEARNING); what is unknown is flooded all the same.

    A CNI plugin's own bridge may send the pod's broadcasts back to it (`hairpinMode`). Learnt there, the guest's MAC
    would be behind the pod's interface, and no frame from there would reach the guest any more.
    """

    index: int

    def describe(self) -> str:
        return f"learn no MACs from {self.link}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.LINK.pack(Family.BRIDGE, 0, self.index, 0, 0)
        body += rt.nested(Ifla.PROTINFO, rt.u8(Ifla.BRPORT_LEARNING, 0))
        return (Request(Kind.SETLINK, 0, body, self.describe()),)
