"""What is in a directory that an image is made from: its metadata alone, without following any link.

A tree is what decides whether a format can hold it, how much room it takes, and whether it is the one that an image in
the cache was made from.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from shim.errors import ImageFault, NodeFault

# A tool that is handed a path meets PATH_MAX (linux/limits.h); what is left is for the directory that it is in.
_LONGEST = 3800
_MOST = 500_000  # entries: half a GiB of the daemon's memory
_NAME = 255  # bytes of a name (linux/limits.h)
_LINKS = 40  # as many as the kernel follows (path_resolution(7))
_BLOCK = 512  # the unit of st_blocks (stat(2))


class Entry(msgspec.Struct, frozen=True):
    """One name of a tree.

    `origin` is where it is on the node; times are in nanoseconds since 1970; `allocated` are the bytes that it takes
    where it is, fewer than `size` where it has holes; `target` is a link's, as it stands there. `inode` are a file's
    device and inode numbers, `part` which of the trees it is of that one was put together from.
    """

    origin: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: tuple[int, int]
    rdev: int
    links: int
    allocated: int
    target: bytes = b""
    part: int = 0

    @property
    def identity(self) -> tuple[int, int, int]:
        """Names that share it are names of one file."""
        return self.part, *self.inode


#: Entries by their path below the top, parents first, names in the order of their bytes; b"" is the top itself.
Tree = dict[bytes, Entry]


def survey(top: Path) -> Tree:
    """The tree at `top`, which may itself be a file; blocks.

    Raises ImageFault for what no tool could be handed, NodeFault where it cannot be read.
    """
    try:
        return dict(_survey(os.fsencode(top)))
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename or os.fspath(top)
        raise NodeFault(f"cannot be read: {error.strerror}", subject=str(name)) from error


def _survey(top: bytes) -> Iterator[tuple[bytes, Entry]]:
    pending: list[bytes] = [b""]
    count = 0
    while pending:
        path = pending.pop()
        count += 1
        if count + len(pending) > _MOST:
            raise ImageFault(f"has more than the {_MOST} entries that an image can be made of", subject=shown(top))
        if len(path) > _LONGEST:
            raise ImageFault(
                f"has a path longer than the {_LONGEST} bytes that an image can be made of", subject=shown(path[:80])
            )
        origin = top + b"/" + path if path else top
        status = os.lstat(origin)
        yield path, _entry(origin, status)
        if stat.S_ISDIR(status.st_mode):
            prefix = path + b"/" if path else b""
            # The last is taken first.
            with os.scandir(origin) as found:
                pending += [prefix + name for name in sorted((each.name for each in found), reverse=True)]


def _entry(origin: bytes, status: os.stat_result) -> Entry:
    return Entry(
        origin=origin,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime=status.st_mtime_ns,
        ctime=status.st_ctime_ns,
        inode=(status.st_dev, status.st_ino),
        rdev=status.st_rdev,
        links=status.st_nlink,
        allocated=status.st_blocks * _BLOCK,
        target=os.readlink(origin) if stat.S_ISLNK(status.st_mode) else b"",  # noqa: PTH115  # a Path would tidy it
    )


def fingerprint(tree: Tree) -> str:
    """Another one for a tree that differs in anything but where it is; reading a file changes nothing of it."""
    digest = hashlib.sha256()
    for path, entry in tree.items():
        links = 0 if stat.S_ISDIR(entry.mode) else entry.links
        digest.update(msgspec.msgpack.encode((path, msgspec.structs.replace(entry, origin=b"", links=links))))
    return digest.hexdigest()


def layer(directory: Path) -> tuple[str, tuple[int, int, int], tuple[int, int, int]]:
    """What names a committed layer, without its being read: its path, and the device, inode and time of change of it
    and of the snapshot's directory that it is in.

    Some layers are mounts (erofs, FUSE), whose own numbers say little: devices are used again, and the inode and the
    time of a mounted image's top may be the same in all of them. Raises NodeFault.
    """
    try:
        return os.fspath(directory), _identity(directory), _identity(directory.parent)
    except OSError as error:
        raise NodeFault(f"the layer cannot be read: {error.strerror}", subject=os.fspath(directory)) from error


def _identity(directory: Path) -> tuple[int, int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns


def graft(tree: Tree, extra: Mapping[bytes, Tree]) -> tuple[Tree, dict[bytes, bytes]]:
    """`tree` with each tree of `extra` in the place of what is at its path, which is a path in the image: links on the
    way there are followed inside it. Also returns where each came to be.

    Directories that are missing on the way are made, as the top is: its owner and mode. Raises ImageFault.
    """
    grown = dict(tree)
    places: dict[bytes, bytes] = {}
    for part, (path, addition) in enumerate(sorted(extra.items()), start=1):
        if b"\0" in path or any(len(name) > _NAME for name in path.split(b"/")):
            raise ImageFault(f"cannot be a path: a name has up to {_NAME} bytes, and no NUL", subject=shown(path))
        place = _resolve(grown, path)
        if not place:
            raise ImageFault("nothing can take the place of an image's top", subject=shown(path))
        places[path] = place
        parents = place.split(b"/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = b"/".join(parents[:depth])
            if parent not in grown:
                grown[parent] = msgspec.structs.replace(grown[b""], origin=b"", inode=(0, len(grown)), allocated=0)
        below = place + b"/"
        for name in [name for name in grown if name == place or name.startswith(below)]:
            del grown[name]
        for name, entry in addition.items():
            grown[below + name if name else place] = msgspec.structs.replace(entry, part=part)
    return dict(sorted(grown.items(), key=lambda item: item[0].split(b"/") if item[0] else [])), places


def _resolve(tree: Tree, path: bytes) -> bytes:
    """The path in `tree` that `path` leads to; its last name is not followed, and what is missing is taken as it is."""
    done: list[bytes] = []
    pending = _names(path)
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            if not done:
                raise ImageFault("leads out of the image", subject=shown(path))
            done.pop()
            continue
        entry = tree.get(b"/".join([*done, name]))
        if not pending or entry is None or stat.S_ISDIR(entry.mode):
            done.append(name)
        elif stat.S_ISLNK(entry.mode):
            links += 1
            if links > _LINKS:
                raise ImageFault("leads through too many links", subject=shown(path))
            if entry.target.startswith(b"/"):
                done.clear()
            pending += _names(entry.target)
        else:
            raise ImageFault(f"{shown(b'/'.join([*done, name]))} is not a directory", subject=shown(path))
    return b"/".join(done)


def _names(path: bytes) -> list[bytes]:
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def shown(path: bytes) -> str:
    """A path as a message can hold it, whatever its bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() and text else repr(text)[1:-1] or "/"
