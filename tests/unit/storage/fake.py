"""A stand-in for the tools, and trees that are nowhere."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from shim.process.spawn import Completed
from shim.storage.tree import Entry

DONE = Completed(0, b"", b"")


class FakeTools:
    """Runs nothing: writes `content` to the image that a tool is to make, copies as cp does, remembers what was asked.

    `before` is awaited first, and may answer in its place.
    """

    def __init__(self, content: bytes = b"image") -> None:
        self.content = content
        self.asked: list[tuple[str, ...]] = []
        self.before: Callable[[Sequence[str]], Awaitable[Completed | None]] | None = None

    async def __call__(self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Completed:
        self.asked.append(tuple(argv))
        await asyncio.sleep(0)
        if self.before is not None and (answer := await self.before(argv)) is not None:
            return answer
        if argv[0].endswith("/cp"):
            source, target = argv[-2:]
            (shutil.copytree if Path(source).is_dir() else shutil.copy2)(source, target)
        for word in argv:
            if word.endswith("/image"):
                Path(word.removeprefix("stdio:")).write_bytes(self.content)
        return DONE


def entry(
    mode: int = stat.S_IFREG | 0o644,
    *,
    size: int = 0,
    inode: int = 1,
    links: int = 1,
    target: bytes = b"",
    mtime: int = 10**18,
    allocated: int | None = None,
) -> Entry:
    """An entry of root's."""
    return Entry(
        origin=b"/nowhere",
        mode=mode,
        uid=0,
        gid=0,
        size=size,
        mtime=mtime,
        ctime=mtime,
        inode=(1, inode),
        rdev=0,
        links=links,
        allocated=size if allocated is None else allocated,
        target=target,
    )


def directory(inode: int = 1, mode: int = 0o755) -> Entry:
    return entry(stat.S_IFDIR | mode, inode=inode)
