"""A directory put together for tools that take one as it is: a copy of the source, with what else belongs there."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from shim.storage.tools import Tools
from shim.storage.tree import Tree

_COPY, _PACKAGE = "cp", "coreutils"


async def stage(top: Path, tree: Tree, extra: Mapping[bytes, Path], place: Path, tools: Tools) -> None:
    """Make the directory `place`: what is in `top`, and each of `extra` at its path, of which no part is a link; `tree`
    is what comes of it. Raises NodeFault, TimedOut."""
    program = tools.locate(_COPY, _PACKAGE)
    await tools.run(program, "-a", "--reflink=auto", "-T", os.fspath(top), os.fspath(place))
    for path, origin in extra.items():
        target = os.path.join(os.fsencode(place), path)
        await asyncio.to_thread(_clear, os.fsencode(place), path, tree)
        await tools.run(program, "-a", "--reflink=auto", "-T", os.fspath(origin), os.fsdecode(target))
    await asyncio.to_thread(_settle, os.fsencode(place), extra, tree)


def _clear(place: bytes, path: bytes, tree: Tree) -> None:
    """Remove what is at `path`, and make the directories that lead to it."""
    for parent in _parents(path):
        directory, entry = os.path.join(place, parent), tree[parent]
        if not os.path.lexists(directory):
            os.mkdir(directory)
            os.chown(directory, entry.uid, entry.gid)
            os.chmod(directory, stat.S_IMODE(entry.mode))
    target = os.path.join(place, path)
    if os.path.isdir(target) and not os.path.islink(target):
        shutil.rmtree(target)
    elif os.path.lexists(target):
        os.unlink(target)


def _settle(place: bytes, extra: Mapping[bytes, Path], tree: Tree) -> None:
    """Directories that something was put into have their times again."""
    for parent in {parent for path in extra for parent in (b"", *_parents(path))}:
        time = tree[parent].mtime
        os.utime(os.path.join(place, parent), ns=(time, time))


def _parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[:depth]) for depth in range(1, len(names))]
