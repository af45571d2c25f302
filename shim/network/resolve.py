"""Learning a next hop's MAC from the pod's own namespace, before eth0 loses the address to ask from."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterable
from ipaddress import ip_address

from shim import log
from shim.errors import NetworkFault
from shim.network.kernel import rtnetlink as rt
from shim.network.kernel.namespace import Namespace
from shim.network.kernel.netlink import NetlinkError, Request
from shim.network.kernel.rtnetlink import Family, Flag, Kind, Nda
from shim.network.layout import Neighbour, parse_neighbour
from shim.network.plan import Unresolved

_log = log.get(__name__)

#: A next hop beside us answers in a fraction of a millisecond.
_FIRST_WAIT = 0.0002
_LONGEST_WAIT = 0.05
#: How long to wait for a next hop that not everything depends on, in seconds. Its MAC is learnt later, too.
_PATIENCE = 0.2


async def resolve(namespace: Namespace, hops: Iterable[Unresolved], timeout: float = 2.0) -> dict[tuple[int, str], str]:
    """MACs by interface index and address. Raises NetworkFault naming the vital next hop that did not answer within
    `timeout` seconds; others may be missing from what is returned."""
    wanted = list(hops)
    found = await asyncio.gather(
        *(_resolve(namespace, hop, timeout if hop.vital else _PATIENCE) for hop in wanted), return_exceptions=True
    )
    macs: dict[tuple[int, str], str] = {}
    for hop, outcome in zip(wanted, found, strict=True):
        if isinstance(outcome, NetworkFault) and not hop.vital:
            _log.warning("a next hop is silent", interface=hop.link, next_hop=hop.address)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            macs[hop.index, hop.address] = outcome
    return macs


async def _resolve(namespace: Namespace, hop: Unresolved, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    wait = _FIRST_WAIT
    try:
        while True:
            entry = await _look_up(namespace, hop)
            if entry is not None and entry.valid:
                return entry.mac
            if entry is None or entry.state in (0, rt.NUD_FAILED):
                await namespace.run(lambda: namespace.netlink.execute([_ask(hop)]))
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
    except NetlinkError as error:
        raise NetworkFault(
            f"the next hop {hop.address} cannot be asked for its MAC: {error.strerror}", subject=hop.link
        ) from error
    asked = "neighbour discovery" if ":" in hop.address else "ARP"
    raise NetworkFault(
        f"the next hop {hop.address} did not answer {asked} within {timeout:g} s",
        subject=hop.link,
        remedy="look at the node's side of the pod's veth: is it up, does it answer or proxy for that address?",
    )


async def _look_up(namespace: Namespace, hop: Unresolved) -> Neighbour | None:
    try:
        found = await namespace.run(
            lambda: namespace.netlink.get(Kind.GETNEIGH, _key(hop, 0), f"look {hop.address} up")
        )
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return parse_neighbour(found.body)


def _ask(hop: Unresolved) -> Request:
    """NTF_USE makes the kernel behave as if a packet were to be sent there."""
    return Request(Kind.NEWNEIGH, Flag.CREATE | Flag.REPLACE, _key(hop, rt.NTF_USE), f"ask {hop.address} for its MAC")


def _key(hop: Unresolved, flags: int) -> bytes:
    address = ip_address(hop.address)
    family = Family.INET if address.version == 4 else Family.INET6
    return rt.NEIGHBOUR.pack(family, hop.index, 0, flags, 0) + rt.attribute(Nda.DST, address.packed)
