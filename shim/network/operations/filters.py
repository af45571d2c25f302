"""Filters on an interface: the discipline that carries them, and our programs in it (tc(8), tc-bpf(8))."""

from __future__ import annotations

import errno
import socket
from typing import Literal

from shim.errors import Bug
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.netlink import Request
from shim.network.kernel.rtnetlink import Flag, Kind, Tca
from shim.network.operations.base import ABSENT, PRESENT, NetlinkOperation
from shim.network.programs import Path
from shim.network.programs.edge import Edge

_PLACES = {"ingress": rt.INGRESS, "egress": rt.EGRESS}
#: Before every other filter, for every protocol.
_INFO = 1 << 16 | socket.htons(rt.ETH_P_ALL)
_HANDLE = 1


class CarryFilters(NetlinkOperation, frozen=True):
    """Give an interface a `clsact` discipline."""

    settled = PRESENT
    index: int

    def describe(self) -> str:
        return f"let {self.link} carry filters"

    def encode(self) -> tuple[Request, ...]:
        body = _discipline(self.index) + rt.text(Tca.KIND, "clsact")
        return (Request(Kind.NEWQDISC, Flag.CREATE | Flag.EXCL, body, self.describe()),)


class DropFilters(NetlinkOperation, frozen=True):
    """Take the discipline away, and all filters with it. The kernel says EINVAL where there is none."""

    settled = ABSENT | {errno.EINVAL}
    index: int

    def describe(self) -> str:
        return f"take all filters off {self.link}"

    def encode(self) -> tuple[Request, ...]:
        return (Request(Kind.DELQDISC, 0, _discipline(self.index), self.describe()),)


class AttachProgram(NetlinkOperation, frozen=True):
    """Put a program in an interface's way: of the frames that it receives (`ingress`) or sends (`egress`)."""

    index: int
    place: Literal["ingress", "egress"]
    side: Literal["guest", "wire"]
    edge: Edge
    path: Path

    def describe(self) -> str:
        edge = self.edge
        doing = [
            *(f"answer for {answer.network} with {answer.mac}" for answer in edge.answers if self.side == "guest"),
            *(
                f"send {steer.network} to {edge.hops[steer.hop].address if steer.hop is not None else 'nowhere'}"
                for steer in edge.steers
                if self.side == "guest"
            ),
            *(f"follow {hop.address}" for hop in edge.hops if self.side == "wire" and not hop.pinned),
        ]
        if edge.mtu:
            doing.append(f"fit packets to {edge.mtu} bytes")
        if self.path.onward is not None:
            doing.append(f"redirect to interface {self.path.onward}")
        return f"at {self.link}'s {self.place}: {', '.join(doing) or 'look on'}"

    def encode(self) -> tuple[Request, ...]:
        raise Bug("a program is attached by its descriptor", subject=self.link)

    def encode_with(self, descriptor: int) -> tuple[Request, ...]:
        """The requests, with the program's descriptor."""
        body = rt.TRAFFIC.pack(0, self.index, _HANDLE, _PLACES[self.place], _INFO)
        body += rt.text(Tca.KIND, "bpf") + rt.nested(
            Tca.OPTIONS,
            rt.u32(Tca.BPF_FD, descriptor),
            rt.text(Tca.BPF_NAME, f"unikernel-{self.side}"),
            rt.u32(Tca.BPF_FLAGS, rt.TCA_BPF_FLAG_ACT_DIRECT),
        )
        return (Request(Kind.NEWTFILTER, Flag.CREATE | Flag.EXCL, body, self.describe()),)


class DetachProgram(NetlinkOperation, frozen=True):
    """Take our program out of an interface's way; other filters stay."""

    settled = ABSENT | {errno.EINVAL}
    index: int
    place: Literal["ingress", "egress"]

    def describe(self) -> str:
        return f"take the program off {self.link}'s {self.place}"

    def encode(self) -> tuple[Request, ...]:
        body = rt.TRAFFIC.pack(0, self.index, _HANDLE, _PLACES[self.place], _INFO) + rt.text(Tca.KIND, "bpf")
        return (Request(Kind.DELTFILTER, 0, body, self.describe()),)


def _discipline(index: int) -> bytes:
    return rt.TRAFFIC.pack(0, index, rt.CLSACT_HANDLE, rt.TC_H_CLSACT, 0)
