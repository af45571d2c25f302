"""cpio ("newc"): the archive that Linux unpacks into its first root file system (an initrd).

Written here and not by cpio(1): that takes its names from a pipe and its directory from where it is started, numbers
inodes as the node has them, and puts no file over another. The format is a header and the file's bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import BinaryIO

from shim.errors import NodeFault
from shim.storage.filesystems.base import FileSystem, Making, refuse
from shim.storage.interruptible import interruptible
from shim.storage.tools import Tools
from shim.storage.tree import Entry, Tree, shown

# Linux, Documentation/driver-api/early-userspace/buffer-format.rst: a magic, then thirteen numbers of 8 hex digits.
_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_ALIGNMENT = 4
_BLOCK = 512  # what an archive is filled up to, as cpio(1) does
_NUMBER = 1 << 32
_SECOND = 10**9
_CHUNK = 8 << 20  # bytes copied between two looks at whether the caller is still there


class Cpio(FileSystem):
    """An initrd, not compressed: it is read once from the node's page cache."""

    name = "cpio"
    program = ""
    package = ""
    writable = False
    needs_directory = False
    fills_holes = True

    def check(self, tree: Tree) -> None:
        """Files of 4 GiB or more, times that do not fit, and names that end the archive."""
        refuse(self.name, "files of 4 GiB or more", (each for each in tree.items() if each[1].size >= _NUMBER))
        refuse(
            self.name,
            "times before 1970 or after 2106",
            (each for each in tree.items() if not 0 <= each[1].mtime // _SECOND < _NUMBER),
        )
        refuse(
            self.name,
            "a file of the name that ends an archive",
            (each for each in tree.items() if each[0] == _TRAILER),
        )

    async def make(self, making: Making, tools: Tools) -> None:
        """In a thread: nearly all of it is the kernel copying."""
        await interruptible(_write, making)


def header(number: int, entry: Entry, name: bytes, size: int, links: int) -> bytes:
    """A member's header and name, filled up."""
    fields = (
        number,
        entry.mode,
        entry.uid,
        entry.gid,
        links,
        entry.mtime // _SECOND,
        size,
        0,
        0,
        os.major(entry.rdev) if _is_device(entry) else 0,
        os.minor(entry.rdev) if _is_device(entry) else 0,
        len(name) + 1,
        0,
    )
    text = _MAGIC + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return text + _filling(len(text))


def members(tree: Tree) -> Iterator[tuple[bytes, Entry, bool]]:
    """Each member's header, its entry, and whether the file's bytes follow.

    Names of one file share a number, and the last has the bytes: Linux makes the file at the first, and writes it when
    it meets them (init/initramfs.c). Numbers are by order, so that they are the same on every node.
    """
    names: dict[tuple[int, int, int], list[bytes]] = {}
    for path, entry in tree.items():
        if not stat.S_ISDIR(entry.mode):
            names.setdefault(entry.identity, []).append(path)
    numbers: dict[tuple[int, int, int], int] = {}
    for position, (path, entry) in enumerate(tree.items(), start=1):
        number, links, last = position, 1, True
        if not stat.S_ISDIR(entry.mode):
            same = names[entry.identity]
            number = numbers.setdefault(entry.identity, position)
            links, last = len(same), path == same[-1]
        regular = stat.S_ISREG(entry.mode)
        size = len(entry.target) if stat.S_ISLNK(entry.mode) else entry.size if regular and last else 0
        yield header(number, entry, path or b".", size, links), entry, regular and last


def _write(making: Making, stop: threading.Event) -> None:
    with making.output.open("xb") as output:
        for head, entry, has_bytes in members(making.tree):
            output.write(head)
            if has_bytes:
                _copy(entry, output, stop)
            else:
                output.write(entry.target + _filling(len(entry.target)))
            if stop.is_set():
                return
        end = header(0, _END, _TRAILER, 0, 1)
        output.write(end)
        output.write(bytes(-output.tell() % _BLOCK))


def _copy(entry: Entry, output: BinaryIO, stop: threading.Event) -> None:
    """Exactly as many bytes as the header says, of the very file that it is of. Raises NodeFault."""
    if entry.size == 0:
        return
    try:
        source = os.open(entry.origin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise NodeFault(f"cannot be read: {error.strerror}", subject=shown(entry.origin)) from error
    try:
        status = os.fstat(source)
        if (status.st_dev, status.st_ino, status.st_size) != (*entry.inode, entry.size):
            raise changed(entry.origin)
        output.flush()
        left = entry.size
        while left and not stop.is_set():
            # copy_file_range(2) may share blocks; where it cannot cross file systems, sendfile(2) can.
            sent = _send(output.fileno(), source, min(left, _CHUNK))
            if sent == 0:
                raise changed(entry.origin)
            left -= sent
        output.seek(0, os.SEEK_END)
    finally:
        os.close(source)
    output.write(_filling(entry.size))


def _send(target: int, source: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.sendfile(target, source, None, count)


def changed(origin: bytes) -> NodeFault:
    """What is said where something did not hold still."""
    return NodeFault("was changed while an image was made of it", subject=shown(origin))


def _is_device(entry: Entry) -> bool:
    return stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)


def _filling(length: int) -> bytes:
    return bytes(-length % _ALIGNMENT)


_END = Entry(origin=b"", mode=0, uid=0, gid=0, size=0, mtime=0, ctime=0, inode=(0, 0), rdev=0, links=1, allocated=0)
