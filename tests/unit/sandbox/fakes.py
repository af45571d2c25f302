"""A node whose engine, journal and processes are fakes: to be stuck on purpose, and to fail where a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from shim.config import Config
from shim.errors import NodeFault
from shim.process.reaper import Exit
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Occurrence


class FakeJournal:
    """Keeps records in memory; `full` makes every write fail."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.full = False

    def write(self, key: str, record: Any) -> None:
        if self.full:
            raise NodeFault("the journal cannot be written: no space left", subject=key)
        self.kept[key] = record

    def forget(self, key: str) -> None:
        self.kept.pop(key, None)


def fake_node(tmp_path: Path) -> Any:
    """A node with fake journals; `told` lists its occurrences."""
    told: list[Occurrence] = []
    node = SimpleNamespace(
        config=Config(run_dir=tmp_path),
        journal=FakeJournal(),
        pods=FakeJournal(),
        announce=told.append,
        told=told,
        sandbox_dir=lambda namespace, sandbox: tmp_path / "sandboxes" / f"{namespace}@{sandbox}",
        container_dir=lambda namespace, container: tmp_path / "containers" / f"{namespace}@{container}",
    )
    return cast(Node, node)


class FakeContainer:
    """A container as its sandbox sees it. `dies` is when its stop ends, `refuses` what it raises."""

    def __init__(self, id: str, *, refuses: Callable[[], Exception] | None = None) -> None:
        self.id = id
        self.refuses = refuses
        self.dies = asyncio.Event()
        self.dies.set()
        self.calls: list[str] = []
        self.record = SimpleNamespace(unikernel=False)

    async def stop(self, grace: float = 0.0) -> None:
        self.calls.append("stop")
        await self.dies.wait()
        if self.refuses is not None:
            raise self.refuses()

    async def destroy(self) -> Any:
        self.calls.append("destroy")
        if self.refuses is not None:
            raise self.refuses()
        return SimpleNamespace(exit=Exit(0, 1))
