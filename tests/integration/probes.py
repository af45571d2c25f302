"""What is asked of a pod's network, whoever is in it: an ordinary pod's own stack or a guest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from tests.integration import layouts
from tests.integration.layouts import Site, Target
from tests.integration.vantage import HEADERS, Vantage

SEED = "0123456789abcdef"
#: How many connections at once.
MANY = 50


class Probes:
    """Every way in which the guest and its targets reach each other; `failures` says which did not work."""

    def __init__(self, site: Site, guest: Vantage, targets: dict[str, Vantage]) -> None:
        self.failures: list[str] = []
        self._site, self._guest, self._targets = site, guest, targets

    async def everything(self) -> list[str]:
        """All there is, the guest's first packet first."""
        for target in self._site.targets[:1]:
            await self._try(f"first connection to {target}", self._guest.converse(target.address, 100))
        # Only then much at once: the kernel keeps few packets for a neighbour that has not answered yet.
        await asyncio.gather(*(each for target in self._site.targets for each in self._pings(target)))
        await asyncio.gather(*(each for target in self._site.targets for each in self._both_ways(target)))
        for target in self._first_of_each_family():
            there, back = self._guest, self._targets[target.namespace]
            await self._try(f"{MANY} connections to {target}", there.converse(target.address, 200, count=MANY))
            await self._try(f"{MANY} connections from {target}", back.converse(target.own, 200, count=MANY))
        await self.forgotten()
        for vantage in (self._guest, *self._targets.values()):
            if vantage.duplicates:
                self.failures.append(f"{vantage.duplicates} answers came twice to {vantage.namespace}")
        return self.failures

    async def forgotten(self) -> None:
        """Router, peers and world forget all they learned, and reach the guest again; what they say when they ask for
        it does not mislead the guest."""
        for namespace in self._targets:
            layouts.ip("neigh", "flush", "all", namespace=namespace)
        await asyncio.gather(
            *(
                self._try(f"{target} that forgot the guest", self._targets[target.namespace].ping(target.own))
                for target in self._site.targets
            )
        )
        await asyncio.gather(
            *(
                self._try(f"{target} after it asked for the guest", self._guest.ping(target.address))
                for target in self._site.targets
            )
        )

    def _pings(self, target: Target) -> Iterator[Coroutine[Any, Any, None]]:
        there, back = self._guest, self._targets[target.namespace]
        yield self._try(f"ping to {target}", there.ping(target.address))
        yield self._try(f"ping from {target}", back.ping(target.own))

    def _both_ways(self, target: Target) -> Iterator[Coroutine[Any, Any, None]]:
        there, back = self._guest, self._targets[target.namespace]
        yield from self._one_way(there, target.address, f"to {target}")
        yield from self._one_way(back, target.own, f"from {target}")

    def _one_way(self, source: Vantage, address: str, words: str) -> Iterator[Coroutine[Any, Any, None]]:
        whole = self._site.mtu - HEADERS[6 if ":" in address else 4]
        fragmented = 2 * self._site.mtu + 500
        yield self._try(f"whole ping {words}", source.ping(address, whole, whole=True))
        yield self._try(f"fragmented ping {words}", source.ping(address, fragmented))
        yield self._try(f"TCP {words}", source.converse(address))
        for size in (100, whole, fragmented):
            yield self._try(f"UDP of {size} bytes {words}", source.exchange(address, size))

    def _first_of_each_family(self) -> list[Target]:
        return list({target.version: target for target in reversed(self._site.targets)}.values())

    async def _try(self, words: str, attempt: Coroutine[Any, Any, None]) -> None:
        try:
            await attempt
        except (OSError, TimeoutError, ValueError) as error:
            self.failures.append(f"{words}: {str(error) or 'nothing came'}")


@asynccontextmanager
async def vantages(site: Site) -> AsyncIterator[dict[str, Vantage]]:
    """A vantage point in each namespace that has a target."""
    async with AsyncExitStack() as stack:
        made = {}
        for namespace in dict.fromkeys(target.namespace for target in site.targets):
            addresses = [target.address for target in site.targets if target.namespace == namespace]
            made[namespace] = await stack.enter_async_context(Vantage(namespace, *addresses))
        yield made


def own_addresses(site: Site) -> tuple[str, ...]:
    """The pod's addresses that somebody is to reach."""
    return tuple(dict.fromkeys(target.own for target in site.targets))


@asynccontextmanager
async def plumbed(site: Site, **options: Any) -> AsyncIterator[tuple[PodNetwork, Plan, list[int]]]:
    """A plumbed pod; afterwards it must be as it was: what the pod had at once, and all of it in the end."""
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, **options)
        taps = await network.apply(plan)
        try:
            yield network, plan, taps
        finally:
            await network.undo(plan)
            after = layouts.dump(site.pod)
            await asyncio.gather(*(close_tap(tap) for tap in taps))
            await network.settled()
        layouts.settle(site.pod)
        ours = layouts.devices(after) - layouts.devices(before)
        at_once = layouts.differences(layouts.without(before, set()), layouts.without(after, ours))
        assert not at_once, at_once
        in_the_end = layouts.differences(before, layouts.dump(site.pod))
        assert not in_the_end, in_the_end


async def reached(vantage: Vantage, addresses: Iterable[str]) -> list[str]:
    """Those that answer a ping; the others are given up together."""

    async def answers(address: str) -> bool:
        try:
            await vantage.ping(address)
        except (OSError, TimeoutError):
            return False
        return True

    each = tuple(addresses)
    return [address for address, yes in zip(each, await asyncio.gather(*map(answers, each)), strict=True) if yes]


async def spoken_by(site: Site) -> list[str]:
    """The pod's namespace itself must be silent: whom it reaches all the same."""
    async with Vantage(site.pod) as pod:
        found = await reached(pod, (target.address for target in site.targets))
    return [f"the pod itself reaches {address}" for address in found]
