"""What can be measured on a node with what is installed there: each thing beside a peer that does the least possible,
taking turns with it, so that a machine whose speed drifts favours neither."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from shim.bench.batch import Batch, names, spelled
from shim.bench.figures import Figure, turns
from shim.errors import NodeFault
from shim.network.kernel.namespace import namespace_path
from shim.network.kernel.tap import close_tap
from shim.network.operations import DelLink
from shim.network.plan import Plan
from shim.network.pod import PodNetwork

_WARM_UP = 3

BARE = "python3 -I -S -c pass"
COURIER = "courier -v"
PLUMBING = "plumb and undo"
BATCH = "ip -batch"


def round_trips(call: Callable[[], object], rounds: int) -> Figure:
    """A call to the service, from request to answer."""
    figure = Figure("call", "A call of the service over gRPC")
    for _ in range(_WARM_UP):
        call()
    for _ in range(rounds):
        with figure.timed("List"):
            call()
    return figure


def courier(binary: Path, rounds: int, environment: Mapping[str, str] | None = None) -> Figure:
    """The shim binary that containerd runs, from its start to its exit, beside its bare interpreter.

    Raises NodeFault where it names none, OSError where it cannot be run, CalledProcessError where it fails.
    """
    argvs = {COURIER: [str(binary), "-v"], BARE: bare(binary)}
    figure = Figure("courier", "The shim binary, start to exit", peer=BARE)

    def run(argv: list[str]) -> None:
        subprocess.run(argv, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    for _, argv in turns(_WARM_UP, argvs):
        run(argv)
    for name, argv in turns(rounds, argvs):
        with figure.timed(name):
            run(argv)
    return figure


def bare(binary: Path) -> list[str]:
    """The argv of a script's interpreter that does nothing.

    Raises NodeFault where the file names none, OSError where it cannot be read.
    """
    with binary.open("rb") as file:
        mark, _, named = file.readline().partition(b"#!")  # execve(2), Interpreter scripts
    if mark or not named.split():
        raise NodeFault("it is no script, so there is no interpreter to compare it with", subject=str(binary))
    interpreter = os.fsdecode(named.split()[0])
    return [interpreter, "-I", "-S", "-c", "pass"]


def batches(plan: Plan) -> tuple[Batch, Batch, Batch]:
    """A plan in the words of ip(8) and tc(8): for plumbing, for eth0's being back, for removing the devices."""
    called = names(plan.operations)
    return (
        spelled(plan.operations, called),
        spelled((each for each in plan.inverses if not isinstance(each, DelLink)), called),
        spelled((each for each in plan.inverses if isinstance(each, DelLink)), called),
    )


async def plumbing(namespace: str, dataplane: str, rounds: int) -> Figure:
    """A pod's network handed to a guest and given back, beside ip(8) and tc(8) doing what they can of the same.

    `namespace` is one by name, with an eth0 that a guest can have. It is as before at the end.
    """
    figure = Figure(f"plumbing.{dataplane}", f"Plumbing and its undoing, {dataplane}", peer=BATCH)
    for number in range(_WARM_UP + rounds):
        if number == _WARM_UP:
            figure.clear()
        began = time.perf_counter()
        async with await PodNetwork.open(namespace_path(namespace)) as network:
            plan = await network.plan(seed="measured", dataplane=dataplane)
            taps = await network.apply(plan)
            await network.undo(plan)
            figure.add(PLUMBING, (time.perf_counter() - began) * 1000)
            await asyncio.gather(*(close_tap(tap) for tap in taps))
            await network.settled()
        there, back, away = batches(plan)
        with figure.timed(BATCH):
            there.run(namespace)
            back.run(namespace)
        away.run(namespace)
    return figure


@contextlib.contextmanager
def made_pod(name: str) -> Iterator[str]:
    """A namespace like a pod's, with another one as its node, for as long as the context is open; its name.

    Raises CalledProcessError, FileNotFoundError without ip(8).
    """
    node, pod = f"{name}-node", f"{name}-pod"
    with contextlib.ExitStack() as undo:
        for namespace in (node, pod):
            _ip("netns", "add", namespace)
            undo.callback(_ip, "netns", "del", namespace)
        _ip("-n", node, "link", "add", "host0", "type", "veth", "peer", "name", "eth0", "netns", pod)
        # Addresses of TEST-NET-1 (RFC 5737).
        _ip("-n", node, "addr", "add", "192.0.2.1/24", "dev", "host0")
        _ip("-n", pod, "addr", "add", "192.0.2.2/24", "dev", "eth0")
        _ip("-n", node, "link", "set", "host0", "up")
        _ip("-n", pod, "link", "set", "eth0", "up")
        _ip("-n", pod, "route", "add", "default", "via", "192.0.2.1")
        yield pod


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True)
