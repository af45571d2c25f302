"""A started reaper on each test's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.process.reaper import Reaper
from shim.process.stdio import Opener
from shim.process.streaming import Rendezvous


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    started = Reaper()
    started.start()
    yield started
    started.stop()


@pytest.fixture
async def opener(reaper: Reaper, tmp_path: Path) -> Opener:
    """What opens streams; those over RPC have their FIFOs in the directory `streams`."""
    (tmp_path / "streams").mkdir()
    return Opener(reaper, Rendezvous(tmp_path / "streams"))
