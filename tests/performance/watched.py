"""The daemon with its event loop watched: `watched.py FILE serve` is `unikernel-shim serve`, and keeps in FILE the
longest time for which the loop had no turn for others, and the longest of its own work in one turn (`blocks`)."""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from tests.integration import paths

_BLOCK = struct.Struct("dd")  # seconds


def program(file: Path) -> Sequence[str]:
    """The words that run it."""
    return [str(paths.BIN / "python"), "-m", __name__, str(file)]


class Blocks:
    """The file, in either process."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_BLOCK.size)
            self._map = mmap.mmap(file.fileno(), _BLOCK.size)

    def note(self, late: float, busy: float) -> None:
        """One turn."""
        longest, busiest = self.read()
        if late > longest or busy > busiest:
            _BLOCK.pack_into(self._map, 0, max(late, longest), max(busy, busiest))

    def read(self) -> tuple[float, float]:
        """The longest so far, in seconds."""
        longest, busiest = _BLOCK.unpack_from(self._map)
        return longest, busiest

    def reset(self) -> None:
        """Begin again."""
        _BLOCK.pack_into(self._map, 0, 0.0, 0.0)


def _main() -> None:
    from shim.cli.main import main
    from tests.performance.blocks import watch

    blocks, run = Blocks(Path(sys.argv.pop(1))), uvloop.run

    def watched(daemon: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            watching = asyncio.create_task(watch(blocks.note))
            try:
                await daemon
            finally:
                watching.cancel()

        run(both())

    uvloop.run = watched
    main()


if __name__ == "__main__":
    _main()
