"""A pod's network tried out: in a namespace that nobody else is in, that has no name, and that ends with its thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import msgspec

from shim.doctor.finding import words
from shim.errors import NetworkFault
from shim.network import loading, programs
from shim.network.kernel.netlink import Netlink, open_socket
from shim.network.kernel.tap import create_tap, open_macvtap
from shim.network.operations import AttachProgram, CarryFilters, CreateBridge, CreateMacvtap
from shim.network.programs.edge import Answer, Edge, Hop, Steer

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)
_LO, _TAP, _BRIDGE, _MACVTAP = 1, 10, 11, 12  # interface indices; lo is always the first
_MAC = "02:00:00:00:00:01"
#: Everything that a pod's programs may do: answer, steer by a map, follow next hops, and fit packets to a small wire.
_EDGE: Final = Edge(
    own=("192.0.2.2", "2001:db8::2"),
    router=_MAC,
    answers=(Answer(network="192.0.2.0/29", mac=_MAC), Answer(network="fe80::1/128", mac=_MAC)),
    hops=(Hop(address="169.254.1.1"), Hop(address="fe80::99")),
    steers=(Steer(network="0.0.0.0/0", hop=0), Steer(network="::/0", hop=1)),
    mtu=1400,
)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel answered to each: "" where it did it, else its words. `namespace` is whether there was one to try
    in; where there was none, nothing else was tried."""

    namespace: str = ""
    tap: str = ""
    bridge: str = ""
    programs: str = ""
    filters: str = ""
    macvtap: str = ""


def attempt() -> Trial:
    """Make each device and program once. For a thread of its own, which this moves to another network namespace: that
    ends with the thread, and with it all that was made."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        return Trial(namespace=os.strerror(ctypes.get_errno()))
    with ExitStack() as ending:
        try:
            netlink = Netlink(open_socket())
        except OSError as error:
            return Trial(namespace=words(error))
        ending.callback(netlink.close)

        def keep(descriptor: int) -> None:
            ending.callback(os.close, descriptor)

        bridge = CreateBridge(link="doctor1", index=_BRIDGE, mac=_MAC, mtu=1500)
        return Trial(
            tap=_refusal(lambda: keep(create_tap("doctor0", _TAP, vnet_hdr=True))),
            bridge=_refusal(lambda: netlink.execute(bridge.encode())),
            programs=_refusal(_load),
            filters=_refusal(lambda: _attach(netlink)),
            macvtap=_refusal(lambda: keep(_macvtap(netlink))),
        )


def _refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except (OSError, NetworkFault) as error:
        return words(error)
    return ""


def _programs() -> list[AttachProgram]:
    path = programs.Path(onward=_LO, answer=_LO, wire=_LO)
    return [
        AttachProgram(index=_LO, link="lo", place="ingress", side="guest", edge=_EDGE, path=path),
        AttachProgram(index=_LO, link="lo", place="egress", side="wire", edge=_EDGE, path=path),
    ]


def _load() -> None:
    with loading.loaded(_programs()):
        pass


def _attach(netlink: Netlink) -> None:
    """A program of a few instructions, so that a kernel which refuses only ours is told from one without filters."""
    operation = AttachProgram(index=_LO, link="lo", place="ingress", side="wire", edge=Edge(), path=programs.Path())
    with loading.loaded([operation]) as descriptors:
        netlink.execute(CarryFilters(index=_LO, link="lo").encode())
        netlink.execute(operation.encode_with(descriptors[id(operation)]))


def _macvtap(netlink: Netlink) -> int:
    """On the bridge, which is there unless the kernel has none: a tap or lo carries no macvtap."""
    netlink.execute(CreateMacvtap(link="doctor2", index=_MACVTAP, parent=_BRIDGE, mtu=1500).encode())
    return open_macvtap("doctor2", vnet_hdr=True)
