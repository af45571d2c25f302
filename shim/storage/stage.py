"""A directory put together for tools that take one as it is: a copy of the source, with what else belongs there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from shim.storage.tools import Tools
from shim.storage.tree import Tree
from shim.threads import in_thread

_COPY, _PACKAGE = "cp", "coreutils"


async def stage(top: Path, tree: Tree, extra: Mapping[bytes, Path], place: Path, tools: Tools) -> None:
    """Make the directory `place`: what is in `top`, and each of `extra` at its path, of which no part is a link; `tree`
    is what comes of it. Raises NodeFault, TimedOut."""
    program = tools.locate(_COPY, _PACKAGE)
    await tools.run(program, "-a", "--reflink=auto", "-T", os.fspath(top), os.fspath(place))
    for path, origin in extra.items():
        await in_thread(_clear, place, path, tree)
        await tools.run(program, "-a", "--reflink=auto", "-T", os.fspath(origin), os.fspath(_at(place, path)))
    await in_thread(_settle, place, extra, tree)


def _at(place: Path, path: bytes) -> Path:
    return place / os.fsdecode(path)


def _clear(place: Path, path: bytes, tree: Tree) -> None:
    """Remove what is at `path`, and make the directories that lead to it."""
    for parent in _parents(path):
        directory, entry = _at(place, parent), tree[parent]
        if not directory.exists():
            directory.mkdir()
            os.chown(directory, entry.uid, entry.gid)
            directory.chmod(stat.S_IMODE(entry.mode))
    target = _at(place, path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _settle(place: Path, extra: Mapping[bytes, Path], tree: Tree) -> None:
    """Directories that something was put into have their times again."""
    for parent in {parent for path in extra for parent in (b"", *_parents(path))}:
        time = tree[parent].mtime
        os.utime(_at(place, parent), ns=(time, time))


def _parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[:depth]) for depth in range(1, len(names))]
