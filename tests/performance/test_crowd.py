"""A hundred pods: how long they take sixteen at a time, what serves them takes of memory, and whether the daemon's
event loop has a turn for others meanwhile. And what pods cost as they grow."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shim.bench.figures import Goal, turns
from tests.integration.conftest import fresh_node, running
from tests.integration.node import SUBNET
from tests.performance import crowd
from tests.performance.calls import states, together
from tests.performance.conftest import Measured
from tests.performance.contenders import RUNC
from tests.performance.place import Place
from tests.performance.processes import RUNC_SHIM, pss, rss
from tests.performance.processes import running as processes
from tests.performance.watched import Longest, program

pytestmark = pytest.mark.timeout(900)

_CROWD = 100
#: For more pods than the harness's subnet has addresses.
_WIDE = "10.88.0.0/21"
_SIZES = (1, 10, 100, 500)
_STARTS, _CALLS = 12, 3000
_SETTLE = 2.0  # seconds, for what a start leaves to be done


@pytest.fixture
def fresh(measured: Measured, pytestconfig: pytest.Config) -> Iterator[tuple[Place, Longest]]:
    """A daemon that has no history but one pod of each kind, and whose event loop is watched."""
    many = pytestconfig.getoption("--pods") > _CROWD
    with fresh_node("crowd", _WIDE if many else SUBNET) as node:
        longest = Longest(node.base / "longest")
        made = Place(node, program(node.base / "longest"))
        with running(made.daemon), running(made.containerd):
            made.prepare(measured.note)
            yield made, longest


@pytest.mark.figure("growth")
def test_as_pods_grow(fresh: tuple[Place, Longest], measured: Measured, pytestconfig: pytest.Config) -> None:
    place, _ = fresh
    first, most = "with 1 pod", pytestconfig.getoption("--pods")
    flat = {f"with {size} pods": (Goal(1.2),) for size in _SIZES[1:]}
    start = measured.figure("growth.start", "Start of a pod as pods grow", peer=first, goals=flat)
    sandbox = measured.figure("growth.sandbox", "Of it: RunPodSandbox", peer=first)
    container = measured.figure("growth.container", "Of it: CreateContainer + StartContainer", peer=first)
    call = measured.figure("growth.call", "Task.State as pods grow, all on one processor", "us", peer=first, goals=flat)
    memory = measured.figure("growth.memory", "The daemon's RSS for each further pod", "KiB")
    pods, before = [place.start(place.smallest)], 0.0
    for size in (each for each in _SIZES if each <= most):
        pods += crowd.start(place, place.smallest, size - len(pods))[0]
        time.sleep(_SETTLE)
        now = rss(place.daemon.pid)
        if size > 1:
            memory.add(f"up to {size} pods", (now - before) * 1024 / (size - _SIZES[_SIZES.index(size) - 1]))
        before, name = now, first if size == 1 else f"with {size} pods"
        for _ in range(_STARTS):
            with start.timed(name):
                with sandbox.timed(name):
                    further = place.smallest.sandbox(place.containerd.cri)
                with container.timed(name):
                    place.smallest.run(further, place.node.subnet)
            further.remove()
        with together(place.daemon.pid):
            call.add(name, *states(place.daemon.ttrpc_socket, pods[0].containers[0], _CALLS))
    crowd.remove(pods)


@pytest.mark.figure("crowd")
def test_a_hundred_pods(fresh: tuple[Place, Longest], measured: Measured) -> None:
    """The daemon's memory is PSS with ordinary containers. With unikernels it is RSS: the tender's double is a Python,
    too, and would take a part of the interpreter's pages over."""
    place, longest = fresh
    shims, ordinary, unikernels = f"{_CROWD} runc shims", "the daemon", "the daemon with unikernels, RSS"
    goal, few = (Goal(0.6),), (Goal(200, ratio=False),)
    wall = measured.figure(
        "crowd.start",
        f"{_CROWD} pods, {crowd.AT_ONCE} at a time, wall clock",
        peer=RUNC,
        goals={place.smallest.name: goal, place.ordinary.name: goal},
    )
    one = measured.figure("crowd.one", "One of these", peer=RUNC)
    end = measured.figure("crowd.end", f"{_CROWD} pods removed, {crowd.AT_ONCE} at a time", peer=RUNC)
    total = measured.figure("memory", f"PSS with {_CROWD} pods", "MiB", peer=shims, goals={ordinary: (Goal(0.10),)})
    each = measured.figure(
        "memory.pod", "PSS for each pod beyond the first", "KiB", peer=shims, goals={ordinary: few, unikernels: few}
    )
    loop = measured.figure(
        "loop",
        f"The event loop while {_CROWD} unikernels start and end",
        goals={"longest block": (Goal(20, of="worst", ratio=False),)},
    )
    for name, contender in turns(1, {each.name: each for each in (place.runc, place.ordinary, place.smallest)}):
        # One that has had a crowd already has the memory for the next.
        place.daemon.stop()
        place.daemon.start()
        daemon = place.daemon.pid
        with place.start(contender):
            time.sleep(_SETTLE)
            before = _shims(place), pss(daemon), rss(daemon)
            longest.reset()
            pods, took, whole = crowd.start(place, contender, _CROWD)
            wall.add(name, whole)
            one.add(name, *took)
            time.sleep(_SETTLE)
            after = _shims(place), pss(daemon), rss(daemon)
            end.add(name, crowd.remove(pods))
        row, which = {RUNC: (shims, 0), place.ordinary.name: (ordinary, 1)}.get(name, (unikernels, 2))
        grown = after[which] - before[which]
        total.add(row, grown if name == RUNC else after[which])
        each.add(row, grown * 1024 / _CROWD)
        if contender is place.smallest:
            block = longest.read()
            loop.add("longest block", block.late * 1000)
            loop.add("of it: on a processor", block.busy * 1000)
            loop.add("of it: waiting for a processor", block.starved * 1000)


def _shims(place: Place) -> float:
    """The PSS of all runc shims, in MiB."""
    return sum(map(pss, processes(RUNC_SHIM, str(place.containerd.socket))))
