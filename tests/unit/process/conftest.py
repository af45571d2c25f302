"""A started reaper on each test's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shim.process.reaper import Reaper


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    started = Reaper()
    started.start()
    yield started
    started.stop()
