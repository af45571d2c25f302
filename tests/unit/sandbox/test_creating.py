"""Creations at once, and cut off: by their caller, by a Delete, by a Stop of their pod. None leaves anything."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import AlreadyExists, NodeFault, NotFound, WrongState
from shim.sandbox import creation
from shim.sandbox.container import Container
from shim.sandbox.creation import Order
from shim.sandbox.record import Pod
from shim.sandbox.sandboxes import Sandboxes
from tests.unit.sandbox.fakes import fake_node


class Engine:
    """What stands for `creation.create`: it begins, and ends when it is let."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.undone: list[str] = []
        self.go = asyncio.Event()

    async def create(self, node: Any, sandbox: Any, order: Order, spec: Any) -> Any:
        self.begun.append(order.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # undoing takes its time
            self.undone.append(order.id)
            raise
        return SimpleNamespace(id=order.id, name="", record=SimpleNamespace(unikernel=False))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(creation, "create", made.create)
    return made


@pytest.fixture
def sandboxes(tmp_path: Path) -> Sandboxes:
    return Sandboxes(fake_node(tmp_path))


def order(tmp_path: Path, id: str, pod: str = "") -> Order:
    bundle = tmp_path / "bundles" / id
    bundle.mkdir(parents=True)
    annotations = {"io.kubernetes.cri.sandbox-id": pod} if pod else {}
    (bundle / "config.json").write_text(json.dumps({"process": {}, "annotations": annotations}))
    return Order(id=id, bundle=bundle)


async def begun(engine: Engine, count: int) -> None:
    async with asyncio.timeout(5):
        while len(engine.begun) < count:
            await asyncio.sleep(0.001)


async def test_one_pod_takes_turns_and_two_pods_do_not_wait(
    sandboxes: Sandboxes, engine: Engine, tmp_path: Path
) -> None:
    orders = [order(tmp_path, id, pod) for id, pod in (("a1", "a"), ("a2", "a"), ("b1", "b"))]
    works = [asyncio.ensure_future(sandboxes.create("ns", each)) for each in orders]
    await begun(engine, 2)
    await asyncio.sleep(0.05)
    assert len(engine.begun) == 2 and "b1" in engine.begun
    engine.go.set()
    await asyncio.gather(*works)
    assert sorted(engine.begun) == ["a1", "a2", "b1"]


async def test_an_id_is_taken_while_it_is_being_created(sandboxes: Sandboxes, engine: Engine, tmp_path: Path) -> None:
    wanted = order(tmp_path, "c")
    work = asyncio.ensure_future(sandboxes.create("ns", wanted))
    await begun(engine, 1)
    with pytest.raises(AlreadyExists):
        await sandboxes.create("ns", wanted)
    engine.go.set()
    await work


async def test_a_cancelled_create_leaves_the_id_free(sandboxes: Sandboxes, engine: Engine, tmp_path: Path) -> None:
    wanted = order(tmp_path, "c")
    work = asyncio.ensure_future(sandboxes.create("ns", wanted))
    await begun(engine, 1)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert engine.undone == ["c"] and sandboxes.all() == []
    with pytest.raises(NotFound):
        sandboxes.container("ns", "c")
    engine.go.set()
    await sandboxes.create("ns", wanted)


async def test_a_delete_cuts_the_creation_off(sandboxes: Sandboxes, engine: Engine, tmp_path: Path) -> None:
    work = asyncio.ensure_future(sandboxes.create("ns", order(tmp_path, "c")))
    await begun(engine, 1)
    with pytest.raises(NotFound):
        await sandboxes.delete("ns", "c", "")
    assert engine.undone == ["c"]
    with pytest.raises(WrongState, match="deleted"):
        await work


async def test_a_stopped_pod_lets_nothing_in(sandboxes: Sandboxes, engine: Engine, tmp_path: Path) -> None:
    pod = sandboxes.add("ns", "pod", Pod())
    with pytest.raises(WrongState, match="start it first"):
        await sandboxes.create("ns", order(tmp_path, "early", "pod"))
    pod.start()
    work = asyncio.ensure_future(sandboxes.create("ns", order(tmp_path, "c", "pod")))
    await begun(engine, 1)
    waiting = asyncio.ensure_future(sandboxes.create("ns", order(tmp_path, "d", "pod")))
    await asyncio.sleep(0.02)
    await sandboxes.stop("ns", "pod")
    for each in (work, waiting):
        with pytest.raises(WrongState):
            await each
    assert engine.undone == ["c"] and engine.begun == ["c"]
    with pytest.raises(WrongState, match="stopped"):
        await sandboxes.create("ns", order(tmp_path, "late", "pod"))


async def test_a_removal_that_failed_is_tried_again_without_being_asked(
    sandboxes: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """containerd runs a courier's `delete` once."""
    monkeypatch.setattr("shim.sandbox.sandboxes._AGAIN", 0.01)
    failures = [NodeFault("the engine fails", subject="c")] * 3
    doomed: list[str] = []

    async def remove(namespace: str, id: str) -> None:
        if failures:
            raise failures.pop()

    sandbox = sandboxes.home("ns", "c")
    sandbox.containers["c"] = cast(Container, SimpleNamespace(doom=doomed.append))
    monkeypatch.setattr(sandboxes, "remove", remove)
    for _ in range(2):
        with pytest.raises(NodeFault):
            await sandboxes.destroy_pod("ns", "c")
    assert set(doomed) == {"c"}
    async with asyncio.timeout(5):
        while failures:
            await asyncio.sleep(0.005)


async def test_a_containers_next_life_is_counted(
    sandboxes: Sandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name in the pod; a container that nobody named has no other life."""
    counted: list[tuple[str, str]] = []
    monkeypatch.setattr("shim.telemetry.count", lambda what, kind: counted.append((what, kind)))

    async def create(node: Any, sandbox: Any, order: Order, spec: Any) -> Any:
        record = SimpleNamespace(unikernel=True)
        return SimpleNamespace(id=order.id, name=order.id.rpartition("-")[0], kind="unikernel", record=record)

    monkeypatch.setattr(creation, "create", create)
    sandboxes.add("ns", "pod", Pod()).start()
    for id in ("web-1", "db-1", "web-2", "web-3", "x1", "x2"):
        await sandboxes.create("ns", order(tmp_path, id, "pod"))
        sandboxes.sandbox("ns", "pod").containers.clear()
    assert counted == [("restarted", "unikernel")] * 2
