"""The end of a pod's daemon: all is told, nobody is left without an answer."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any, cast

import pytest

from shim import daemon, rundir
from shim.errors import InvalidRequest


class Surroundings:
    """What `_gone` looks at, and in which order it does what."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.told = asyncio.Event()
        self.left: float | None = 0
        self.doors = self.ttrpc = self.lifetime = self.publisher = self

    async def over(self) -> None:
        while self.left != 0:
            await asyncio.sleep(0.01)
        self.done.append("over")

    async def flush(self, timeout: float) -> bool:
        await asyncio.wait_for(self.told.wait(), timeout)
        self.done.append("told")
        return True

    async def stop(self, grace: float) -> None:
        self.done.append("stopped")

    def gone(self, directory: rundir.PodDirectory) -> asyncio.Task[None]:
        return asyncio.ensure_future(daemon._gone(cast(Any, self), directory))


async def test_events_are_told_first(tmp_path: Path) -> None:
    around = Surroundings()
    async with rundir.of_pod(tmp_path / "x", "n/c") as directory:
        gone = around.gone(directory)
        await asyncio.sleep(0.05)
        assert around.done == ["over"]
        around.told.set()
        await asyncio.wait_for(gone, 2)
    assert around.done == ["over", "told", "stopped"]


async def test_a_call_that_comes_while_events_are_told_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_HELD", 0.02)
    around = Surroundings()
    async with rundir.of_pod(tmp_path / "x", "n/c") as directory:
        gone = around.gone(directory)
        await asyncio.sleep(0.05)
        around.left = None  # a call is under way
        around.told.set()
        await asyncio.sleep(0.1)
        assert not gone.done() and "stopped" not in around.done
        around.left = 0
        await asyncio.wait_for(gone, 2)
    assert around.done[-1] == "stopped"


async def test_a_courier_that_is_about_to_ask_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_HELD", 0.02)
    around = Surroundings()
    around.told.set()
    async with rundir.of_pod(tmp_path / "x", "n/c") as directory:
        courier = rundir.PodDirectory(tmp_path / "x")
        assert courier.hold()
        gone = around.gone(directory)
        await asyncio.sleep(0.1)
        assert not gone.done() and "stopped" not in around.done
        courier.let_go()
        await asyncio.wait_for(gone, 2)


@pytest.mark.parametrize("pod", ["", "c", "n/", "/c", "n/../c", "n/c/d"])
def test_what_is_no_pod_is_refused(pod: str) -> None:
    with pytest.raises(InvalidRequest):
        daemon._parts(pod)


def test_a_pod_and_no_pod() -> None:
    assert daemon._parts("k8s.io/c") == ("k8s.io", "c")
    assert daemon._parts("/") == ("", "")


def test_what_is_loaded_is_out_of_the_collectors_way() -> None:
    kept: dict[str, list[int]] = {"a": []}
    try:
        daemon._keep_what_is_loaded()
        assert gc.get_freeze_count() > 1000
        assert not any(each is kept for each in gc.get_objects())
    finally:
        gc.unfreeze()
