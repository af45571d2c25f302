"""The files of an image's layers, each laid over those below it, as containerd does it (pkg/archive, applyNaive; OCI
image-spec, layer.md), on paper: only what is where is kept, and no content.

A name's own dots are taken away first and cannot lead above the top; links on the way to it are followed inside the
image.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

import msgspec

from shim.errors import ImageFault
from shim.oci.archive.entries import Entry

_WHITEOUT, _WHITEOUT_META, _OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"
_LINKS = 40  # as many as the kernel follows (path_resolution(7))
_PATH = 4096  # PATH_MAX (linux/limits.h)
# An image of a whole distribution has some hundred thousand files.
_NODES = 1 << 22


class File(msgspec.Struct, frozen=True):
    """A regular file: its size, and where its content is, the `entry`-th of the layer of that number, both from 0."""

    size: int
    layer: int
    entry: int


class Symlink(msgspec.Struct, frozen=True):
    """A symbolic link."""

    target: str


class Special(msgspec.Struct, frozen=True):
    """A device, a FIFO: what no container image has a use for."""


class Directory(msgspec.Struct):
    """A directory: what is in it, and for each name the last layer that had an entry for it (those that are only on
    the way to one have none)."""

    children: dict[str, Node] = msgspec.field(default_factory=dict)
    layers: dict[str, int] = msgspec.field(default_factory=dict)


Node = File | Symlink | Special | Directory


class Tree:
    """All files of an image."""

    def __init__(self) -> None:
        self.top = Directory()
        self._nodes = 0

    def apply(self, layer: int, entries: Iterable[Entry]) -> None:
        """Lay the entries of the layer of that number over what is there.

        Raises ImageFault where an engine could not unpack them: a file in a file, a hard link to nothing.
        """
        for position, entry in enumerate(entries):
            for path in (entry.name, entry.target):
                if len(path) > _PATH or "\0" in path:
                    raise ImageFault("no file system can hold this path", subject=repr(path[:64]))
            *above, base = _names(entry.name) or [""]
            if not base:
                continue
            parent = self._directory(above, entry.name)
            if base == _OPAQUE:
                _hide_below(parent, layer)
            elif base.startswith(_WHITEOUT_META):
                continue
            elif base.startswith(_WHITEOUT):
                hidden = base.removeprefix(_WHITEOUT)
                if hidden in ("", ".", ".."):
                    raise ImageFault("a whiteout of nothing", subject=entry.name)
                parent.children.pop(hidden, None)
            else:
                self._put(parent, base, self._node(layer, position, entry), layer)

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        """What is met on the way to `path`, links followed, each with its own path without links; the last is `path`'s
        own where it leads somewhere. Ends early where it does not: nothing there, above the top, links without end.
        """
        passed: list[tuple[str, Directory]] = [("", self.top)]
        pending = list(reversed(path.split("/")))
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(passed) == 1:
                    return
                passed.pop()
                continue
            here, directory = passed[-1]
            node = directory.children.get(name)
            if node is None:
                return
            place = f"{here}/{name}"
            yield place, node
            if isinstance(node, Directory):
                passed.append((place, node))
            elif isinstance(node, Symlink):
                links += 1
                if links > _LINKS:
                    return
                if node.target.startswith("/"):
                    del passed[1:]
                pending += reversed(node.target.split("/"))
            elif any(rest not in ("", ".") for rest in pending):
                return

    def size(self) -> tuple[int, int]:
        """How many regular files there are, one with several names counted once, and their bytes."""
        found = set(_files(self.top))
        return len(found), sum(file.size for file in found)

    def _directory(self, names: list[str], subject: str) -> Directory:
        """The directory at `names`, links followed, made where it is not there."""
        passed = [self.top]
        pending = list(reversed(names))
        links = 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(passed) > 1:
                    passed.pop()
                continue
            node = passed[-1].children.get(name)
            if node is None:
                node = passed[-1].children[name] = Directory()
                self._count()
            if isinstance(node, Symlink):
                links += 1
                if links > _LINKS:
                    raise ImageFault("its directory is behind too many links", subject=subject)
                if node.target.startswith("/"):
                    del passed[1:]
                pending += reversed(node.target.split("/"))
            elif isinstance(node, Directory):
                passed.append(node)
            else:
                raise ImageFault(f"it is to be below {name}, which is no directory", subject=subject)
        return passed[-1]

    def _node(self, layer: int, position: int, entry: Entry) -> Node:
        match entry.kind:
            case "file":
                return File(size=entry.size, layer=layer, entry=position)
            case "directory":
                return Directory()
            case "symlink":
                return Symlink(target=entry.target)
            case "hardlink":
                *above, base = _names(entry.target) or [""]
                node = self._directory(above, entry.name).children.get(base)
                if node is None or isinstance(node, Directory):
                    raise ImageFault(
                        f"a hard link to {entry.target}, which is no file of the image", subject=entry.name
                    )
                return node
            case _:
                return Special()

    def _put(self, parent: Directory, name: str, node: Node, layer: int) -> None:
        there = parent.children.get(name)
        if not (isinstance(there, Directory) and isinstance(node, Directory)):
            parent.children[name] = node
            self._count()
        parent.layers[name] = layer

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > _NODES:
            raise ImageFault(f"the image has more than {_NODES} files")


def _names(path: str) -> list[str]:
    return [name for name in posixpath.normpath(f"/{path}").split("/") if name]


def _hide_below(directory: Directory, layer: int) -> None:
    """Remove what layers below `layer` left in a directory: what this one named stays, whichever came first."""
    pending = [directory]
    while pending:
        here = pending.pop()
        for name, node in list(here.children.items()):
            if here.layers.get(name) != layer:
                del here.children[name]
            elif isinstance(node, Directory):
                pending.append(node)


def _files(directory: Directory) -> Iterator[File]:
    pending = [directory]
    while pending:
        for node in pending.pop().children.values():
            if isinstance(node, Directory):
                pending.append(node)
            elif isinstance(node, File):
                yield node
