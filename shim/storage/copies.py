"""Copies of large, sparse files: shared blocks where the file system can, else no more written than there is."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409
_CHUNK = 8 << 20  # bytes copied between two looks at whether the caller is still there
# What FICLONE and copy_file_range say where a file system, or the two of them together, cannot (ioctl_ficlone(2)).
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY)


def copy(source: Path, target: Path, stop: threading.Event) -> None:
    """Make `target`, mode 0600, a copy of the file `source`, replacing it as a whole; blocks.

    Nothing is left where it fails or is stopped, and where the process is killed no more than a `.partial` beside it,
    which the next copy to the same place overwrites. Raises OSError.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            writing = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if not _clone(reading, writing):
                    _copy_data(reading, writing, stop)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        if not stop.is_set():
            partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _clone(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _copy_data(reading: int, writing: int, stop: threading.Event) -> None:
    os.ftruncate(writing, os.fstat(reading).st_size)
    for start, end in extents(reading):
        position = start
        while position < end and not stop.is_set():
            sent = _send(reading, writing, position, min(end - position, _CHUNK))
            if sent == 0:  # cut short meanwhile
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            position += sent


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: start and end of each run between its holes (lseek(2))."""
    position, size = 0, os.fstat(descriptor).st_size
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def _send(reading: int, writing: int, position: int, count: int) -> int:
    try:
        return os.copy_file_range(reading, writing, count, position, position)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return os.pwrite(writing, os.pread(reading, count, position), position)
