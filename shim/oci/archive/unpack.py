"""The few files of an image that a question is about, on disk: there a path leads where it leads in the image."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from shim.errors import ImageFault, NodeFault
from shim.oci.archive.entries import Content, Entry
from shim.oci.archive.tree import Directory, File, Symlink, Tree

# What of a file is unpacked; the rest is a hole. A kernel is smaller, and nobody asks what is in a disk.
_MOST = 256 << 20
# What of all files is: more than a kernel and an initrd, and no more than a machine's temporary files can bear.
_IN_ALL = 1 << 30
_CHUNK = 1 << 20

#: The entries of the layer of that number, each with its content.
Contents = Callable[[int], Generator[tuple[Entry, Content | None], None, None]]


def unpack(tree: Tree, names: Iterable[str], into: Path, contents: Contents) -> None:
    """Put the files that `names` lead to into the directory `into`, with the directories and links on the way there.

    What leads nowhere leaves as much of its way as there is; what is there already stays. No name of the image's is
    followed on disk: each is placed by its path without links. Raises ImageFault where the content cannot be read or a
    file system cannot hold a name, NodeFault where the disk is full.
    """
    try:
        _unpack(tree, names, into, contents)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NodeFault(
                f"the files to be looked at cannot be unpacked: {error.strerror}", subject=os.fspath(into)
            ) from error
        raise ImageFault(
            f"the file cannot be unpacked: {error.strerror}", subject=os.fspath(error.filename or "")
        ) from error


def _unpack(tree: Tree, names: Iterable[str], into: Path, contents: Contents) -> None:
    wanted: dict[int, dict[int, list[Path]]] = {}
    for name in names:
        for place, node in tree.walk(name):
            path = into / place.lstrip("/")
            if os.path.lexists(path):
                continue
            if isinstance(node, Directory):
                path.mkdir(mode=0o700)
            elif isinstance(node, Symlink):
                path.symlink_to(node.target)
            elif isinstance(node, File):
                path.touch(mode=0o600)
                wanted.setdefault(node.layer, {}).setdefault(node.entry, []).append(path)
            else:
                # Whatever is no regular file is refused by anybody who finds it; this one needs no privilege.
                os.mkfifo(path, mode=stat.S_IRUSR)
    room = _IN_ALL
    for layer, entries in sorted(wanted.items()):
        with contextlib.closing(contents(layer)) as found:
            room = _fill(found, entries, room)


def _fill(found: Iterator[tuple[Entry, Content | None]], wanted: dict[int, list[Path]], room: int) -> int:
    last = max(wanted)
    for position, (entry, data) in enumerate(found):
        if position in wanted:
            if data is None:
                raise ImageFault("it is stored sparse, which is not read here", subject=entry.name)
            room -= _write(data, entry.size, wanted[position], min(_MOST, room))
        if position >= last:
            break
    return room


def _write(data: Content, size: int, paths: list[Path], most: int) -> int:
    first, *others = paths
    written = 0
    with first.open("wb") as file:
        while written < most and (piece := data.read(min(_CHUNK, most - written))):
            file.write(piece)
            written += len(piece)
        file.truncate(size)
    for other in others:
        other.unlink()
        other.hardlink_to(first)
    return written
