"""The files of an image's layers, each laid over those below it, on paper: what is where is kept, and no content.

It is done as containerd does it with overlayfs (plugins/snapshots/overlay, pkg/archive; OCI image-spec, layer.md). Each
layer is first a tree of its own, in which a name's dots cannot lead above the top and links on the way are followed; so
a layer that has an entry below what is a link in a lower one has a directory there, which hides the link.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator

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


class Whiteout(msgspec.Struct, frozen=True):
    """Of a layer: what lower layers have here is not there any more. A whole tree has none."""


class Directory(msgspec.Struct):
    """A directory; of a layer, `opaque` says that nothing of lower layers is in it."""

    children: dict[str, Node] = msgspec.field(default_factory=dict)
    opaque: bool = False


Node = File | Symlink | Special | Whiteout | Directory


class Tree:
    """All files of an image."""

    def __init__(self) -> None:
        self.top = Directory()
        self._nodes = 0

    def apply(self, layer: int, entries: Iterable[Entry]) -> None:
        """Lay the entries of the layer of that number over what is there.

        Raises ImageFault where an engine could not unpack them: a file in a file, a hard link to nothing.
        """
        own = Directory()
        for position, entry in enumerate(entries):
            for path in (entry.name, entry.target):
                if len(path) > _PATH or "\0" in path:
                    raise ImageFault("no file system can hold this path", subject=repr(path[:64]))
            self._count()
            self._put(own, File(size=entry.size, layer=layer, entry=position), entry)
        _merge(self.top, own)

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > _NODES:
            raise ImageFault(f"the image has more than {_NODES} files and directories")

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

    def _put(self, own: Directory, file: File, entry: Entry) -> None:
        """Put an entry, which is `file` if it is a regular one, into its layer's tree."""
        *above, base = _names(entry.name) or [""]
        if not base:
            return
        parent = _directory(own, above, entry.name, made=self._count)
        if base == _OPAQUE:
            parent.opaque = True
        elif base.startswith(_WHITEOUT_META):
            return
        elif base.startswith(_WHITEOUT):
            hidden = base.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise ImageFault("a whiteout of nothing", subject=entry.name)
            parent.children.setdefault(hidden, Whiteout())
        else:
            node, there = self._node(own, file, entry), parent.children.get(base)
            if not isinstance(node, Directory):
                parent.children[base] = node
            elif not isinstance(there, Directory):
                parent.children[base] = Directory(opaque=isinstance(there, Whiteout))

    def _node(self, own: Directory, file: File, entry: Entry) -> Node:
        match entry.kind:
            case "file":
                return file
            case "directory":
                return Directory()
            case "symlink":
                return Symlink(target=entry.target)
            case "hardlink":
                *above, base = _names(entry.target) or [""]
                for top in (own, self.top):
                    node = _directory(top, above, entry.name).children.get(base)
                    if isinstance(node, File | Symlink | Special):
                        return node
                raise ImageFault(f"a hard link to {entry.target}, which is no file of the image", subject=entry.name)
            case _:
                return Special()


def _directory(top: Directory, names: list[str], subject: str, *, made: Callable[[], None] | None = None) -> Directory:
    """The directory at `names` below `top`, links followed; one that is not there is made, and `made` is called for it,
    or without that is an empty one.

    Raises ImageFault, naming `subject`, where something else is there.
    """
    passed = [top]
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
        if node is None or isinstance(node, Whiteout):
            node = Directory(opaque=node is not None)
            if made is not None:
                made()
                passed[-1].children[name] = node
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


def _merge(top: Directory, layer: Directory) -> None:
    """Lay a layer's tree over the one of those below it."""
    pending = [(top, layer)]
    while pending:
        lower, upper = pending.pop()
        if upper.opaque:
            lower.children.clear()
        for name, node in upper.children.items():
            if isinstance(node, Whiteout):
                lower.children.pop(name, None)
            elif isinstance(node, Directory):
                there = lower.children.get(name)
                if not isinstance(there, Directory):
                    there = lower.children[name] = Directory()
                pending.append((there, node))
            else:
                lower.children[name] = node


def _names(path: str) -> list[str]:
    return [name for name in posixpath.normpath(f"/{path}").split("/") if name]


def _files(directory: Directory) -> Iterator[File]:
    pending = [directory]
    while pending:
        for node in pending.pop().children.values():
            if isinstance(node, Directory):
                pending.append(node)
            elif isinstance(node, File):
                yield node
