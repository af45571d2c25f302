"""Proofs, from the pod's side, that a guest is where the network thinks it is.

For each NIC and each family that it speaks, three questions in this order, because each may change what the next one
would find:

gateway  As the guest, its next hop is asked for its MAC on the pod's interface.
router   As the guest, the next hop is pinged, or something beyond it by a packet that dies there. What comes back is
         addressed by the router's own neighbour entry for the guest, which is thereby seen. A guest that answers a
         request may mend that entry, so this comes before the third.
guest    The guest is asked for its MAC as a router asks that has not met it: by broadcast or to its multicast group, in
         the name of its gateway, with the MAC that it takes for the gateway's.

For IPv4 the gateway is first asked in nobody's name (RFC 5227): that too leaves the router's entry as it is. IPv6 has
no such question. The guest meets a few answers to questions it has not asked, which every stack ignores.
"""

from __future__ import annotations

import asyncio
import enum
import os
import secrets
import time
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import NamedTuple

import msgspec

from shim.errors import NetworkFault
from shim.network.addressing.mac import link_local, locally_administered
from shim.network.checking import packets
from shim.network.checking.frames import Frames, open_frames
from shim.network.checking.packets import Echoed, Resolved
from shim.network.kernel.namespace import Namespace, open_namespace
from shim.network.operations import AttachProgram
from shim.network.plan import Nic, Plan
from shim.network.programs import TURN_ROUND
from shim.network.programs.edge import Edge

# Seconds to wait for an answer, an attempt each; for one family together about a second where nobody answers at all.
_GATEWAY_WAITS = (0.05, 0.1, 0.15)
_ROUTER_WAITS = (0.1, 0.1)
_GUEST_WAITS = (0.1, 0.15)
_LAST_WAIT = (0.25,)
#: Behind every router and in front of none: addresses for documentation (RFC 5737, RFC 3849).
_BEYOND = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}

Address = IPv4Address | IPv6Address


class Probe(enum.StrEnum):
    """What is asked."""

    GUEST = "guest"
    GATEWAY = "gateway"
    ROUTER = "router"


class Outcome(enum.StrEnum):
    """What came of it."""

    PROVEN = "proven"
    WRONG = "wrong"
    UNANSWERED = "unanswered"
    NOT_ASKED = "not asked"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One proof of one interface and family ("ipv4", "ipv6"): the outcome, a sentence, and what to do."""

    interface: str
    family: str
    probe: Probe
    outcome: Outcome
    sentence: str
    remedy: str = ""

    @property
    def failed(self) -> bool:
        """Whether something is the matter. A router may be silent on purpose: then its entry is merely unknown."""
        return self.outcome is Outcome.WRONG or (self.outcome is Outcome.UNANSWERED and self.probe is not Probe.ROUTER)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of one pod; `at` in nanoseconds since the epoch, `took` in seconds."""

    at: int
    took: float
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether anything is the matter."""
        return any(finding.failed for finding in self.findings)


async def check_at(path: Path, plan: Plan) -> Report:
    """Check the guest that `plan` plumbed in the namespace at `path`. See `check`; a namespace that is gone is a
    finding too."""
    at = time.time_ns()
    try:
        namespace = await open_namespace(path)
    except NetworkFault as error:
        return Report(at=at, took=0.0, findings=tuple(each for nic in plan.nics for each in _out_of_reach(nic, error)))
    try:
        return await check(namespace, plan)
    finally:
        namespace.close()


async def check(namespace: Namespace, plan: Plan) -> Report:
    """Ask all there is to ask, everything at once.

    Takes milliseconds where all answer, about a second where nobody does; cancelled, it leaves nothing behind. An
    interface that is gone is a finding.
    """
    at, start = time.time_ns(), time.monotonic()
    found = await asyncio.gather(*(_nic(namespace, nic, _edge(plan, nic)) for nic in plan.nics))
    return Report(
        at=at, took=time.monotonic() - start, findings=tuple(finding for findings in found for finding in findings)
    )


def _edge(plan: Plan, nic: Nic) -> Edge:
    """What is done to the NIC's frames."""
    attached = (step.do for step in plan.steps if isinstance(step.do, AttachProgram))
    return next((each.edge for each in attached if each.path.wire == nic.index), Edge())


def _families(nic: Nic) -> list[IPv4Interface | IPv6Interface]:
    return [ip_interface(address) for address in (nic.address, nic.address6) if address]


def _out_of_reach(nic: Nic, error: NetworkFault) -> list[Finding]:
    """Nobody can be asked: the guest's network is not what it was made to be."""
    verdict = _Verdict(Outcome.UNANSWERED, f"{error.subject}: {error.message}", error.remedy)
    return [_finding(nic, f"ipv{own.version}", Probe.GUEST, verdict) for own in _families(nic)]


async def _nic(namespace: Namespace, nic: Nic, edge: Edge) -> list[Finding]:
    families = _families(nic)
    if not families:
        return [_finding(nic, "", Probe.GUEST, _Verdict(Outcome.NOT_ASKED, "it has no address to ask for"))]
    try:
        with ExitStack() as closing:
            wire = await open_frames(namespace, nic.name)
            closing.callback(wire.close)
            # A macvtap's own interface leads to the wire: there the pod's interface turns marked frames round.
            turned = nic.dataplane == "macvtap"
            inside = await open_frames(namespace, nic.name if turned else nic.tap, mark=TURN_ROUND if turned else 0)
            closing.callback(inside.close)
            proofs = [_Proofs(nic, edge, own, wire, inside).run() for own in families]
            return [finding for findings in await asyncio.gather(*proofs) for finding in findings]
    except NetworkFault as error:
        return _out_of_reach(nic, error)


class _Proofs:
    """The three proofs of one family, in turn: each uses what the former learned."""

    def __init__(self, nic: Nic, edge: Edge, own: IPv4Interface | IPv6Interface, wire: Frames, inside: Frames) -> None:
        """`wire` is the pod's interface; `inside` is what reaches the guest."""
        self._nic, self._wire, self._inside = nic, wire, inside
        self._own: Address = own.ip
        gateway, hop = (nic.gateway, nic.next_hop) if own.version == 4 else (nic.gateway6, nic.next_hop6)
        self._gateway = ip_address(gateway) if gateway else None
        self._hop = ip_address(hop) if hop else None
        self._gateway_mac = _answered(edge, self._gateway)
        self._pinned = _pinned(edge, self._hop)
        self._hop_mac = ""

    @property
    def _turned(self) -> bool:
        """Whether what reaches the guest is what the pod's interface turns round; its answers then leave there."""
        return self._inside.interface == self._wire.interface

    async def run(self) -> list[Finding]:
        gateway = await self._prove(Probe.GATEWAY, self._wire, self._gateway_answers())
        router = await self._prove(Probe.ROUTER, self._wire, self._router_knows())
        guest = await self._prove(Probe.GUEST, self._inside, self._guest_answers())
        return [guest, gateway, router]

    async def _prove(self, probe: Probe, frames: Frames, proof: Awaitable[_Verdict]) -> Finding:
        try:
            verdict = await proof
        except OSError as error:  # ENETDOWN, ENXIO, ENODEV: the interface is down or goes away just now
            verdict = _Verdict(
                Outcome.UNANSWERED,
                f"nothing can be asked on {frames.interface}: {os.strerror(error.errno or 0)}",
                "was the pod's network changed by somebody else?",
            )
        return _finding(self._nic, f"ipv{self._own.version}", probe, verdict)

    async def _gateway_answers(self) -> _Verdict:
        hop, name = self._hop, self._nic.name
        if hop is None:
            return _Verdict(Outcome.NOT_ASKED, f"{name} has no next hop: all that it reaches is on its link")
        if self._pinned:
            self._hop_mac = self._pinned
            return _Verdict(
                Outcome.NOT_ASKED, f"pinned, not asked: a permanent entry says that {hop} is at {self._pinned}"
            )

        def answer(frame: bytes, leaving: bool) -> str | None:
            heard = None if leaving else packets.parse(frame)
            # Where the pod's interface turns frames round, the virtual router's answers to the guest pass here.
            if isinstance(heard, Resolved) and heard.address == hop and heard.mac != self._nic.virtual_mac:
                return heard.mac
            return None

        found = await self._wire.ask(self._gateway_question, answer, _GATEWAY_WAITS)
        if found is None:
            return _Verdict(
                Outcome.UNANSWERED,
                f"{hop} does not answer {_protocol(hop)} on {name}",
                "look at the other end of the pod's link: is it up, has it that address, may this pod use its MAC?",
            )
        self._hop_mac = found
        return _Verdict(Outcome.PROVEN, f"{hop} answers {_protocol(hop)} on {name}, from {found}")

    def _gateway_question(self, attempt: int) -> Sequence[bytes]:
        mac, hop = self._nic.mac, self._hop
        if isinstance(hop, IPv4Address):
            own = self._own if isinstance(self._own, IPv4Address) and attempt else packets.NOBODY
            return [packets.arp_request(mac, own, hop)]
        assert hop is not None
        own6 = ip_interface(self._nic.address6).ip if self._nic.address6 else link_local(mac)
        assert isinstance(own6, IPv6Address)
        return [packets.solicitation(mac, own6, hop)]

    async def _router_knows(self) -> _Verdict:
        own, expected = self._own, self._nic.mac
        if not self._hop_mac:
            return _Verdict(
                Outcome.NOT_ASKED, "there is no router to ask" if self._hop is None else "the router's MAC is not known"
            )
        identifier = secrets.randbits(16)

        def answer(frame: bytes, leaving: bool) -> Echoed | None:
            heard = None if leaving else packets.parse(frame)
            if isinstance(heard, Echoed) and (heard.version, heard.identifier) == (own.version, identifier):
                return heard
            return None

        found: Echoed | None = None
        for target in (self._hop, _BEYOND[own.version]):
            if found is None and target is not None and target.version == own.version:
                found = await self._wire.ask(
                    lambda attempt, target=target: [  # type: ignore[misc]
                        packets.echo_request(expected, self._hop_mac, own, target, identifier, attempt)
                    ],
                    answer,
                    _ROUTER_WAITS,
                )
        if found is None:
            return _Verdict(
                Outcome.UNANSWERED,
                f"unknown: no router answers a packet of {own} that dies there, or it answers to somewhere else",
            )
        said = f"{found.sender} sends what is for {own} to {found.destination}"
        if found.destination != expected:
            return _Verdict(
                Outcome.WRONG,
                f"{said}, and the guest is {expected}",
                f"remove that entry of {own} at the router (ip neigh del); whoever made it permanent must renew it",
            )
        return _Verdict(Outcome.PROVEN, f"{said}, which is the guest")

    async def _guest_answers(self) -> _Verdict:
        own, expected = self._own, self._nic.mac

        def answer(frame: bytes, leaving: bool) -> Resolved | None:
            heard = packets.parse(frame) if leaving is self._turned else None
            return heard if isinstance(heard, Resolved) and heard.address == own else None

        found = await self._inside.ask(lambda attempt: [self._to_all()], answer, _GUEST_WAITS)
        stranger = locally_administered(secrets.token_bytes(6))
        if found is None:
            # One that hears only what is for its own MAC tells by whom it answers that it has heard but this.
            questions = [self._to_all(), self._question(stranger, None, self._nic.mac)]
            found = await self._inside.ask(lambda attempt: questions, answer, _LAST_WAIT)
        if found is None:
            return _Verdict(
                Outcome.UNANSWERED,
                f"nobody answers {_protocol(own)} for {own} on {self._nic.tap}",
                "read the guest's console: has it come up, and taken the address it was told?",
            )
        if found.destination == stranger:
            return _Verdict(
                Outcome.WRONG,
                f"the guest answers for {own} only what is sent to its own MAC, so nobody finds it who has not met it",
                "something between the network and the guest drops what is sent to all, or to its multicast groups: "
                "choose another dataplane, or have the guest's driver take them",
            )
        for mac in (found.mac, found.source):
            if mac != expected:
                return _Verdict(
                    Outcome.WRONG,
                    f"the guest answers for {own} with the MAC {mac}, not with {expected}",
                    "the network knows the pod by its own MAC: have the guest take the one that its device has",
                )
        return _Verdict(Outcome.PROVEN, f"the guest answers for {own} from {expected}")

    def _to_all(self) -> bytes:
        """The question as a router asks it that does not know the guest: nothing else finds out whether it is found."""
        mac, gateway = self._gateway_as_told()
        return self._question(mac, gateway, "")

    def _question(self, mac: str, sender: Address | None, to: str) -> bytes:
        own = self._own
        if isinstance(own, IPv4Address):
            known = sender if isinstance(sender, IPv4Address) else packets.NOBODY
            return packets.arp_request(mac, known, own, to or packets.BROADCAST)
        return packets.solicitation(mac, sender if isinstance(sender, IPv6Address) else link_local(mac), own, to)

    def _gateway_as_told(self) -> tuple[str, Address | None]:
        """The MAC and address that the guest may be asked in the name of: its gateway's, as the guest knows it.

        What a request says of its sender the guest believes, so a MAC that may be another than the gateway's speaks for
        no address that anybody has. Nor is the gateway's name used where the frame passes programs that learn.
        """
        mac = self._gateway_mac or (self._hop_mac if self._gateway == self._hop else "")
        if mac and self._gateway is not None and not self._turned:
            return mac, self._gateway
        return locally_administered(secrets.token_bytes(6)), None


def _answered(edge: Edge, address: Address | None) -> str:
    """The MAC that the pod's network itself tells the guest for an address, "" where the wire does."""
    fitting = [
        (network.prefixlen, answer.mac)
        for answer in edge.answers
        if address is not None and address in (network := ip_network(answer.network))
    ]
    return max(fitting)[1] if fitting else ""


def _pinned(edge: Edge, hop: Address | None) -> str:
    """The MAC that a permanent neighbour entry gives for the next hop, "" where there is none."""
    for each in edge.hops:
        if each.pinned and each.address == str(hop):
            return each.mac
    mac = _answered(edge, hop)
    return mac if mac != edge.router else ""


class _Verdict(NamedTuple):
    outcome: Outcome
    sentence: str
    remedy: str = ""


def _finding(nic: Nic, family: str, probe: Probe, verdict: _Verdict) -> Finding:
    return Finding(
        interface=nic.name,
        family=family,
        probe=probe,
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        remedy=verdict.remedy,
    )


def _protocol(address: Address) -> str:
    return "ARP" if address.version == 4 else "neighbour discovery"
