"""Each test of a door runs on uvloop, as the daemon does, and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.unit.rpc.echo import Echo


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory with a name short enough for sockets, of mode 0755 as a careless node would have it."""
    with tempfile.TemporaryDirectory(prefix="rpc-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
