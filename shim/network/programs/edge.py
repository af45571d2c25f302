"""What the pod's network does for a guest that cannot do it itself, as data.

A guest knows one gateway. Where that is not enough, it is given a router that does not exist: the *virtual router*, a
MAC of the pod's own, which answers for addresses on the wire's behalf. What the guest sends there gets the MAC of the
real next hop, by the pod's own routes. `programs` turns this into what the kernel runs.
"""

from __future__ import annotations

import msgspec


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A real next hop: its address, of either family, and its MAC, "" until resolved. The MAC is followed when it
    changes, except where it is `pinned`: a permanent neighbour entry said so."""

    address: str
    mac: str = ""
    pinned: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever asks for an address of `network` is told `mac`; an IPv6 network is a single address."""

    network: str
    mac: str


class Steer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to the virtual router and on to `network` leaves by `Edge.hops[hop]`, or not at all where `hop` is
    None. The longest network wins."""

    network: str
    hop: int | None


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """All that is done to one NIC's frames.

    `own` are the guest's addresses, which are never answered for. `router` is the virtual router's MAC, "" where there
    is none. `mtu` is the wire's, in bytes, where it is less than what guests take for granted, else 0: TCP then offers
    no larger segments, and larger packets are cut up or sent back with that figure.
    """

    own: tuple[str, ...] = ()
    router: str = ""
    answers: tuple[Answer, ...] = ()
    hops: tuple[Hop, ...] = ()
    steers: tuple[Steer, ...] = ()
    mtu: int = 0

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.answers or self.steers or self.mtu)
