"""What a containerd hears again that has missed events."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from shim.process.reaper import Exit
from shim.process.stdio import Streams
from shim.sandbox.process import Process
from shim.sandbox.record import ContainerRecord
from shim.sandbox.resync import present
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status


def container(id: str, *steps: Status, destination: str = "", execs: tuple[Process, ...] = ()) -> Any:
    return SimpleNamespace(
        id=id,
        record=ContainerRecord(namespace="ns", container=id, sandbox="s", bundle=Path("/"), destination=destination),
        init=process(id, *steps),
        execs={each.name: each for each in execs},
    )


def process(name: str, *steps: Status) -> Process:
    made = Process(name, Streams())
    made.pid = 7
    for step in steps:
        made.end(Exit(3, 1)) if step is Status.STOPPED else made.become(step)
    return made


def told(*containers: Any, destination: str = "default") -> list[str]:
    sandbox = cast(Sandbox, SimpleNamespace(containers={held.id: held for held in containers}))
    return [
        f"{type(it).__name__} {it.container} {getattr(it, 'process', '')}".rstrip()
        for it in present([sandbox], destination, "default")
    ]


def test_the_order_is_the_one_that_clients_rely_on() -> None:
    execs = (process("e", Status.RUNNING, Status.STOPPED), process("f", Status.RUNNING), process("g"))
    assert told(container("c", Status.RUNNING, Status.STOPPED, execs=execs)) == [
        "Started c", "ExecStarted c e", "Exited c e", "ExecStarted c f", "Exited c c",
    ]  # fmt: skip


def test_what_has_not_begun_is_not_told_and_what_is_paused_is() -> None:
    assert told(container("c"), container("d", Status.RUNNING, Status.PAUSED)) == ["Started d", "Paused d"]


def test_each_containerd_hears_of_its_own() -> None:
    held = (container("c", Status.RUNNING), container("d", Status.RUNNING, destination=str(Path("/other"))))
    assert told(*held) == ["Started c"]
    assert told(*held, destination="/other") == ["Started d"]
