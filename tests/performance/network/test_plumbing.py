"""How long plumbing takes, beside `ip -batch` and `tc -batch` doing what they can of the same in the same namespace.

Ours does more (see `batch`): it opens the tap, writes settings, and loads programs. Theirs starts a process each, which
is shown by itself. Undoing is measured up to eth0's being back; nobody waits for devices to go.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
import uvloop

from shim.bench.batch import Batch, start
from shim.bench.figures import Figure, Goal
from shim.bench.measuring import batches
from shim.network.addressing.interfaces import DATAPLANES
from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from shim.network.resolve import resolve
from tests.integration import layouts
from tests.integration.layouts import Site
from tests.performance.blocks import TICK, Block, watch
from tests.performance.conftest import Measured

pytestmark = [pytest.mark.timeout(500), pytest.mark.figure("plumbing")]

_LAYOUTS: dict[str, Callable[[], AbstractContextManager[Site]]] = {"subnet": layouts.bridged, "/32": layouts.routed}
_ROUNDS = 60
_WARM_UP = 3
_CROWD = 100
_CROWD_ROUNDS = 3


@dataclass
class Clock:
    """Time since it was last read, in milliseconds."""

    last: float = field(default_factory=time.perf_counter)

    def read(self) -> float:
        """And start again."""
        now = time.perf_counter()
        took, self.last = (now - self.last) * 1000, now
        return took


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_one_interface(layout: str, measured: Measured) -> None:
    def figures(key: str, title: str, ours: str) -> dict[str, Figure]:
        goals = {ours: (Goal(0.8),)}
        return {
            dataplane: measured.figure(
                f"{key}.{layout}.{dataplane}", f"{title}, {layout}, {dataplane}", peer="ip -batch", goals=goals
            )
            for dataplane in DATAPLANES
        }

    plumbing = figures("plumbing", "Plumbing", "ours: apply")
    undoing = figures("undoing", "Undoing", "ours")
    trips = measured.figure(f"netlink.{layout}", f"Netlink sends, {layout}", "sends")
    tables = (*plumbing.values(), *undoing.values(), trips)
    with _LAYOUTS[layout]() as site, _loop() as runner:
        for number in range(_WARM_UP + _ROUNDS):
            if number == _WARM_UP:
                for table in tables:
                    table.clear()
            for dataplane in DATAPLANES:
                plan = runner.run(_ours(site, dataplane, plumbing[dataplane], undoing[dataplane], trips))
                _theirs(site.pod, plan, plumbing[dataplane], undoing[dataplane])


def _loop() -> asyncio.Runner:
    """The loop that the daemon runs on."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _ours(site: Site, dataplane: str, plumbing: Figure, undoing: Figure, trips: Figure) -> Plan:
    clock = Clock()
    async with await PodNetwork.open(site.path) as network:
        netlink = network._namespace.netlink
        opening = clock.read()
        found = await network.plan(seed="measured", dataplane=dataplane)
        planning, reading = clock.read(), netlink.round_trips
        plan = found.resolved(await resolve(network._namespace, found.resolve))
        resolving, asked = clock.read(), netlink.round_trips
        taps = await network.apply(plan)
        applying, applied = clock.read(), netlink.round_trips
        plumbing.add("ours: apply", applying)
        plumbing.add("ours: open, read, plan", opening + planning)
        if found.resolve:
            plumbing.add("ours: ask the next hop for its MAC", resolving)
        plumbing.add("ours: all of that", opening + planning + resolving + applying)
        clock.read()
        await network.undo(plan)
        undoing.add("ours", clock.read())
        trips.add(f"{dataplane}: read and plan", reading)
        trips.add(f"{dataplane}: ask the next hop", asked - reading)
        trips.add(f"{dataplane}: apply", applied - asked)
        trips.add(f"{dataplane}: undo", netlink.round_trips - applied)
        await asyncio.gather(*(close_tap(tap) for tap in taps))
        await network.settled()
    return plan


def _theirs(namespace: str, plan: Plan, plumbing: Figure, undoing: Figure) -> None:
    there, back, away = batches(plan)
    clock = Clock()
    start("ip", namespace, ())
    plumbing.add("ip -batch of nothing", clock.read())
    there.run(namespace)
    plumbing.add("ip -batch", clock.read())
    clock.read()
    back.run(namespace)
    undoing.add("ip -batch", clock.read())
    away.run(namespace)


@contextmanager
def _crowd() -> Iterator[list[Site]]:
    with ExitStack() as stack:
        sites = [stack.enter_context(layouts.bridged(settled=False)) for _ in range(_CROWD)]
        for site in sites:
            layouts.settle(site.pod)
        yield sites


def test_a_hundred_at_once(measured: Measured) -> None:
    """A hundred sandboxes of one daemon, each from opening its namespace to the open tap."""
    wall = {
        dataplane: measured.figure(
            f"plumbing.crowd.{dataplane}", f"{_CROWD} sandboxes at once, {dataplane}", peer="ip -batch, all at once"
        )
        for dataplane in DATAPLANES
    }
    with _crowd() as sites, _loop() as runner:
        for _ in range(_CROWD_ROUNDS):
            for dataplane in DATAPLANES:
                plans = runner.run(_ours_at_once(sites, dataplane, wall[dataplane]))
                _theirs_at_once(sites, plans, wall[dataplane])


async def _ours_at_once(sites: list[Site], dataplane: str, wall: Figure) -> list[Plan]:
    networks: list[PodNetwork] = []
    plans: list[Plan] = []
    taps: list[int] = []
    each: list[float] = []

    async def plumb(number: int, site: Site) -> None:
        clock = Clock()
        network = await PodNetwork.open(site.path)
        networks.append(network)
        plan = await network.plan(seed=f"measured{number}", dataplane=dataplane)
        plans.append(msgspec.structs.replace(plan, sandbox=site.pod))
        taps.extend(await network.apply(plan))
        each.append(clock.read())

    clock = Clock()
    blocked = await _longest_block(lambda: asyncio.gather(*(plumb(*pair) for pair in enumerate(sites))))
    wall.add("ours, all at once: wall clock", clock.read())
    wall.add("ours: one of them", *each)
    wall.add("ours: longest block of the event loop", blocked)
    clock.read()
    pairs = zip(networks, plans, strict=True)
    blocked = await _longest_block(lambda: asyncio.gather(*(network.undo(plan) for network, plan in pairs)))
    wall.add("ours, undone all at once: wall clock", clock.read())
    wall.add("ours, undoing: longest block", blocked)
    await asyncio.gather(*(close_tap(tap) for tap in taps))
    await asyncio.gather(*(network.settled() for network in networks))
    wall.add("ours: until all devices are gone, too", clock.read())
    for network in networks:
        network.close()
    return plans


def _theirs_at_once(sites: list[Site], plans: list[Plan], wall: Figure) -> None:
    spelled = {plan.sandbox: batches(plan) for plan in plans}
    clock = Clock()
    _all_at_once({site.pod: spelled[site.pod][0] for site in sites})
    wall.add("ip -batch, all at once", clock.read())
    _all_at_once({site.pod: spelled[site.pod][1] for site in sites})
    wall.add("ip -batch, undone all at once", clock.read())
    _all_at_once({site.pod: spelled[site.pod][2] for site in sites})


def _all_at_once(batches: dict[str, Batch]) -> None:
    """A process for each, started one after the other and then waited for; tc(8)'s turn comes after ip(8)'s."""
    for program in ("ip", "tc"):
        started = []
        for namespace, batch in batches.items():
            lines = batch.ip if program == "ip" else batch.tc
            if not lines:
                continue
            argv = [program, "-n", namespace, "-batch", "-"]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert process.stdin is not None
            process.stdin.write("\n".join(lines).encode())
            process.stdin.close()
            started.append(process)
        assert all(process.wait() == 0 for process in started)


async def _longest_block(work: Callable[[], Awaitable[object]]) -> float:
    """The longest time, in milliseconds, for which nothing else on the event loop had its turn."""
    longest = 0.0

    def note(block: Block) -> None:
        nonlocal longest
        longest = max(longest, block.late)

    watching = asyncio.ensure_future(watch(note))
    await asyncio.sleep(TICK)
    try:
        await work()
        await asyncio.sleep(TICK)
    finally:
        watching.cancel()
    return longest * 1000
