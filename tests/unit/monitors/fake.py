"""A stand-in for running programs, and programs that are only files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from shim.errors import TimedOut
from shim.process.spawn import Completed

Answer = Callable[[Sequence[str]], Completed | None]


class FakeRun:
    """Answers as it is told (None: the program hangs until its timeout) and remembers what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, argv: Sequence[str], *, timeout: float) -> Completed:
        self.asked.append(tuple(argv))
        await asyncio.sleep(0)
        done = self.answer(argv)
        if done is None:
            raise TimedOut(f"did not end within {timeout:g} s", subject=argv[0])
        return done


def program(directory: Path, name: str) -> Path:
    """An executable file that nobody executes."""
    path = directory / name
    path.write_text("")
    path.chmod(0o755)
    return path
