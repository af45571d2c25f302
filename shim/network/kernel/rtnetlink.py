"""The rtnetlink wire format: attributes, messages, and the numbers we use. Pure; no socket is touched here.

Formats and numbers are the kernel's user ABI: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h,
linux/neighbour.h, linux/if_bridge.h, linux/fib_rules.h, linux/pkt_sched.h, linux/pkt_cls.h and the manual pages
netlink(7) and rtnetlink(7). Integers are in the machine's own byte order, addresses in network order, and every
attribute starts on a multiple of four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple


class Kind(IntEnum):
    """Message types (linux/netlink.h, linux/rtnetlink.h)."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    SETLINK = 19
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNEIGH = 28
    DELNEIGH = 29
    GETNEIGH = 30
    GETRULE = 34
    NEWQDISC = 36
    DELQDISC = 37
    GETQDISC = 38
    NEWTFILTER = 44
    DELTFILTER = 45
    GETTFILTER = 46
    GETNSID = 90


class Flag(IntFlag):
    """Header flags (linux/netlink.h); the upper ones mean different things for get, new and acknowledgement."""

    REQUEST = 0x1
    MULTI = 0x2
    ACK = 0x4
    DUMP_INTR = 0x10
    DUMP = 0x300
    REPLACE = 0x100
    EXCL = 0x200
    CREATE = 0x400
    APPEND = 0x800
    CAPPED = 0x100
    ACK_TLVS = 0x200


HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # struct rtmsg: family, dst length, src length, tos, table, protocol, scope, type, flags
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
#: struct rta_cacheinfo: references, last use, expiry in 1/USER_HZ s, error, uses, id, timestamp, its age.
ROUTE_CACHE = struct.Struct("=IIiIIIII")
#: The clock of what the kernel tells programs (asm-generic/param.h).
USER_HZ = 100
#: struct rtgenmsg: family, padded as netlink pads.
GENERIC = struct.Struct("=Bxxx")
RULE = struct.Struct("=BBBBBxxBI")  # struct fib_rule_hdr: family, dst length, src length, tos, table, action, flags
TRAFFIC = struct.Struct("=BxxxiIII")  # struct tcmsg: family, index, handle, parent, info
NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, index


class Message(NamedTuple):
    """One message as it came: its type and what follows the header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes, marked as such: the kernel's strict parser wants the mark."""
    return attribute(kind | _NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """An attribute that is one byte."""
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """An attribute that is a 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The (type, value) pairs from `offset` on, marks removed. Raises ValueError on a length that cannot be."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise ValueError(f"netlink attribute of {length} bytes at {offset} of {len(data)}")
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message, padded so that another may follow."""
    head = HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0)
    return head + body + b"\0" * (-len(body) % 4)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises ValueError where it is cut off."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            raise ValueError(f"netlink message of {length} bytes at {offset} of {len(data)}")
        yield Message(kind, flags, sequence, data[offset + HEADER.size : offset + length])
        offset += (length + 3) & ~3


class Family(IntEnum):
    """Address families as rtnetlink uses them (linux/socket.h)."""

    UNSPEC = 0
    INET = 2
    BRIDGE = 7
    INET6 = 10


class Ifla(IntEnum):
    """Link attributes (linux/if_link.h), with the nested ones behind a prefix."""

    ADDRESS = 1
    IFNAME = 3
    MTU = 4
    LINK = 5
    MASTER = 10
    PROTINFO = 12
    LINKINFO = 18
    IFALIAS = 20
    EXT_MASK = 29
    LINK_NETNSID = 37
    INFO_KIND = 1
    INFO_DATA = 2
    INFO_SLAVE_KIND = 4
    INFO_SLAVE_DATA = 5
    BR_MCAST_SNOOPING = 23
    BRPORT_STATE = 1
    BRPORT_LEARNING = 8
    TUN_OWNER = 1
    TUN_VNET_HDR = 5
    TUN_PERSIST = 6
    MACVLAN_MODE = 1
    IPVLAN_MODE = 1


class Ifa(IntEnum):
    """Address attributes (linux/if_addr.h)."""

    ADDRESS = 1
    LOCAL = 2
    LABEL = 3
    BROADCAST = 4
    CACHEINFO = 6
    FLAGS = 8
    RT_PRIORITY = 9


class Rta(IntEnum):
    """Route attributes (linux/rtnetlink.h)."""

    DST = 1
    OIF = 4
    GATEWAY = 5
    PRIORITY = 6
    PREFSRC = 7
    METRICS = 8
    MULTIPATH = 9
    CACHEINFO = 12
    TABLE = 15
    VIA = 18
    EXPIRES = 23
    NH_ID = 30
    METRIC_MTU = 2  # RTAX_MTU, inside METRICS


class Fra(IntEnum):
    """Attributes of policy rules (linux/fib_rules.h)."""

    SRC = 2
    PRIORITY = 6
    TABLE = 15
    #: What narrows a rule down by more than the source's address: destination, interfaces, marks, users, ports, …
    DST = 1
    IIFNAME = 3
    FWMARK = 10
    FLOW = 11
    TUN_ID = 12
    SUPPRESS_IFGROUP = 13
    SUPPRESS_PREFIXLEN = 14
    OIFNAME = 17
    L3MDEV = 19
    UID_RANGE = 20
    IP_PROTO = 22
    SPORT_RANGE = 23
    DPORT_RANGE = 24


class Tca(IntEnum):
    """Attributes of traffic control (linux/rtnetlink.h, linux/pkt_cls.h), with the nested ones behind a prefix."""

    KIND = 1
    OPTIONS = 2
    BPF_FD = 6
    BPF_NAME = 7
    BPF_FLAGS = 8


class Nda(IntEnum):
    """Neighbour attributes (linux/neighbour.h)."""

    DST = 1
    LLADDR = 2
    CACHEINFO = 3
    PROBES = 4
    MASTER = 9


class Netnsa(IntEnum):
    """Attributes of the number that one network namespace has in another (linux/net_namespace.h)."""

    NSID = 1
    FD = 3


MACVLAN_MODE_PASSTHRU = 8
#: BR_STATE_* by number (linux/if_bridge.h).
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
#: IPVLAN_MODE_* by number (linux/if_link.h).
IPVLAN_MODES = ("l2", "l3", "l3s")

# The queueing discipline that only carries filters, and its two places (linux/pkt_sched.h, linux/pkt_cls.h).
TC_H_CLSACT = 0xFFFFFFF1
CLSACT_HANDLE = 0xFFFF0000
INGRESS = 0xFFFFFFF2
EGRESS = 0xFFFFFFF3
ETH_P_ALL = 0x0003
TCA_BPF_FLAG_ACT_DIRECT = 1
#: Actions of policy rules that look a table up, or refuse (linux/fib_rules.h, FR_ACT_*).
FR_ACT_TO_TBL = 1
FR_ACT_REFUSING = (6, 7, 8)

RTEXT_FILTER_SKIP_STATS = 1 << 3

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80
IFF_ALLMULTI = 0x200
IFF_LOWER_UP = 0x10000
ARPHRD_ETHER = 1

IFA_F_SECONDARY = 0x01
IFA_F_NODAD = 0x02
IFA_F_DEPRECATED = 0x20
IFA_F_DADFAILED = 0x08
IFA_F_TEMPORARY = 0x01  # of IPv6; the same bit as SECONDARY of IPv4
IFA_F_NOPREFIXROUTE = 0x200

NUD_INCOMPLETE = 0x01
NUD_REACHABLE = 0x02
NUD_STALE = 0x04
NUD_DELAY = 0x08
NUD_PROBE = 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
#: States in which the kernel trusts the link-layer address it has (net/neighbour.h, NUD_VALID).
NUD_VALID = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY

NTF_USE = 0x01

RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RTPROT_KERNEL = 2
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
#: Route types by number (linux/rtnetlink.h, RTN_*).
ROUTE_TYPES = (
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
)
#: A cached copy of a route, such as one with a learned path MTU.
RTM_F_CLONED = 0x200
#: The next-hop flags that may be given; the others are the kernel's report (RTNH_F_PERVASIVE, RTNH_F_ONLINK).
RTNH_SETTABLE = 0x2 | 0x4
