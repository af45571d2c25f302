"""The daemon with its event loop watched: `watched.py FILE serve` is `unikernel-shim serve`, and keeps in FILE the
longest time for which the loop had no turn for others (`blocks`)."""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from shim.cli.main import main
from tests.integration import paths
from tests.performance.blocks import Block, watch

_FIELDS = struct.Struct("ddd")  # a Block's


def program(file: Path) -> Sequence[str]:
    """The words that run it."""
    return [str(paths.BIN / "python"), "-m", __name__, str(file)]


class Longest:
    """The file, in either process."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_FIELDS.size)
            self._map = mmap.mmap(file.fileno(), _FIELDS.size)

    def note(self, block: Block) -> None:
        """One turn."""
        if block.late > self.read().late:
            _FIELDS.pack_into(self._map, 0, block.late, block.busy, block.starved)

    def read(self) -> Block:
        """The longest block so far."""
        return Block(*_FIELDS.unpack_from(self._map))

    def reset(self) -> None:
        """Begin again."""
        _FIELDS.pack_into(self._map, 0, 0.0, 0.0, 0.0)


def _main() -> None:
    longest, run = Longest(Path(sys.argv.pop(1))), uvloop.run

    def watched(daemon: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            watching = asyncio.create_task(watch(longest.note))
            try:
                await daemon
            finally:
                watching.cancel()

        run(both())

    uvloop.run = watched
    main()


if __name__ == "__main__":
    _main()
