"""The cache's directory: images by their content, keys by what they were made from. All of it blocks.

    images/DIGEST.FORMAT    an image, never written again; its time of access is when it was last asked for
    keys/KEY                what the source KEY became
    building/KEY/           an image that is being made, by whoever has the lock of building/KEY.lock

Several daemons share it. An image is whole and on the disk before it has its name, a key is written after that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shim import telemetry
from shim.errors import NodeFault
from shim.storage.copies import extents
from shim.telemetry import Leftover, Tally

# An image that was asked for so lately is not removed: its monitor may not have opened it yet. Seconds.
_GRACE = 600.0
_LEFT = 1 << 20  # bytes: with less than that left of a file system, what failed on it failed for want of room
_HASHED = 4 << 20  # bytes at once


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a key stands for. `lasting` is false for what hardly another pod asks for."""

    digest: str
    format: str
    size: int
    lasting: bool = True


class Cache:
    """One node's images on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._images, self._keys, self._building = (directory / name for name in ("images", "keys", "building"))

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Turns an OSError inside into a NodeFault that names the directory."""
        try:
            yield
        except OSError as error:
            raise self.fault(error) from error

    def fault(self, error: OSError) -> NodeFault:
        """What an OSError of the cache means."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._no_room()
        reason = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
        return NodeFault(f"the cache of images cannot be used: {reason}", subject=os.fspath(self.directory))

    def _no_room(self) -> NodeFault:
        return NodeFault(
            "there is no room left for an image",
            subject=os.fspath(self.directory),
            remedy="free some, lower storage.limit, or set storage.directory to one of a larger file system",
        )

    def prepare(self) -> None:
        """Make the directories, root's alone: an image holds what its pod holds."""
        with self.reported():
            for each in (self._images, self._keys, self._building):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)

    def free(self) -> int:
        """Bytes left of the file system. Raises OSError."""
        status = os.statvfs(self.directory)
        return status.f_bfree * status.f_frsize

    def require(self, size: int) -> None:
        """Raises NodeFault where an image of `size` bytes cannot fit."""
        with self.reported():
            if self.free() < size:
                raise self._no_room()

    def failure(self, fault: NodeFault) -> NodeFault:
        """`fault` of a tool, or what is behind it: a full file system. To be asked before anything is removed."""
        with self.reported():
            # Some tools remove what they wrote; then their words are all that is left (they are run with LC_ALL=C).
            full = self.free() < _LEFT or os.strerror(errno.ENOSPC) in fault.message
        return self._no_room() if full else fault

    def find(self, key: str) -> tuple[Path, Known] | None:
        """The image that `key` became, if it is there; it counts as used from now on."""
        if not self._images.exists():  # nothing was ever made here
            return None
        with self.reported(), self._guard(fcntl.LOCK_SH):
            return self._find(key)

    def _find(self, key: str) -> tuple[Path, Known] | None:
        try:
            known = msgspec.json.decode((self._keys / key).read_bytes(), type=Known)
            path = self._path(known)
            status = path.stat()
            if status.st_size != known.size:
                return None
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return path, known

    def _path(self, known: Known) -> Path:
        return self._images / f"{known.digest}.{known.format}"

    @contextlib.contextmanager
    def _guard(self, how: int) -> Iterator[None]:
        """Between finding an image and removing it, over all daemons."""
        descriptor = os.open(self._images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def claim(self, key: str, *, wait: bool = True) -> int | None:
        """A descriptor that holds `key`'s lock, for `release`; waits for another daemon, or returns None at once."""
        path = self._building / f"{key}.lock"
        with self.reported():
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Whoever had it before may have removed the file, and then another one holds the new file's lock.
                    if _same(descriptor, path):
                        return descriptor
                except BlockingIOError:
                    os.close(descriptor)
                    return None
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)

    def release(self, key: str, descriptor: int) -> None:
        """Remove what is half made for `key`, and let go of its lock."""
        try:
            shutil.rmtree(self._building / key, ignore_errors=True)
            (self._building / f"{key}.lock").unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def workplace(self, key: str) -> Path:
        """An empty directory to make `key`'s image in; its lock is held."""
        place = self._building / key
        with self.reported():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)
        return place

    def keep(self, key: str, made: Path, format: str, *, lasting: bool) -> tuple[Path, Known]:
        """Take the image `made` in: flushed, named by its content, and known by its key."""
        with self.reported():
            descriptor = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Whoever a monitor runs as may read it; others do not come as far as here.
                os.fchmod(descriptor, 0o444)
                known = Known(
                    digest=sha256(descriptor), format=format, size=os.fstat(descriptor).st_size, lasting=lasting
                )
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path = self._path(known)
            with self._guard(fcntl.LOCK_SH):
                made.rename(path)
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
            note = made.with_name("key")
            note.write_bytes(msgspec.json.encode(known))
            note.rename(self._keys / key)
        return path, known

    def clear(self) -> None:
        """Remove what killed daemons left half made, and keys of images that are gone."""
        with self.reported():
            for each in list(self._building.iterdir()):
                key = each.name.removesuffix(".lock")
                descriptor = self.claim(key, wait=False)
                if descriptor is not None:
                    half_made = (self._building / key).is_dir()
                    self.release(key, descriptor)
                    if half_made:
                        telemetry.count(Tally.LEFTOVER, Leftover.IMAGE)
            for note in list(self._keys.iterdir()):
                with self._guard(fcntl.LOCK_EX):
                    if self._known(note) is None:
                        note.unlink(missing_ok=True)

    def _known(self, note: Path) -> Known | None:
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            known = msgspec.json.decode(note.read_bytes(), type=Known)
            if self._path(known).exists():
                return known
        return None

    def evict(self, limit: int, now: float | None = None) -> list[Path]:
        """Remove images that nobody uses, the longest unused first, until `limit` bytes are left; those that are
        not lasting in any case. Returns what was removed."""
        now = time.time() if now is None else now
        removed: list[Path] = []
        with self.reported():
            lasting = {
                self._path(known) for note in self._keys.iterdir() if (known := self._known(note)) and known.lasting
            }
            images = [(path.stat(), path) for path in self._images.iterdir()]
            total = sum(status.st_blocks * 512 for status, _ in images)
            for status, path in sorted(images, key=lambda image: image[0].st_atime_ns):
                if (total > limit or path not in lasting) and self._remove(path, now):
                    removed.append(path)
                    total -= status.st_blocks * 512
        return removed

    def _remove(self, path: Path, now: float) -> bool:
        with self._guard(fcntl.LOCK_EX):
            try:
                if now - path.stat().st_atime < _GRACE or _is_open(path):
                    return False
            except FileNotFoundError:
                return False
            path.unlink()
            return True


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_open(path: Path) -> bool:
    """Whether anybody has the file open: a lease for writing is had only then not (fcntl(2), F_SETLEASE)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Whoever opens it while the lease is held has us told; by default by SIGIO, which ends a process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Other errors are a file system without leases. What is removed while open stays with whoever has it open.
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def sha256(descriptor: int) -> str:
    """A file's SHA-256; its holes are not read. Raises OSError."""
    digest, position = hashlib.sha256(), 0
    for start, end in extents(descriptor):
        _zeros(digest, start - position)
        for offset in range(start, end, _HASHED):
            digest.update(os.pread(descriptor, min(_HASHED, end - offset), offset))
        position = end
    _zeros(digest, os.fstat(descriptor).st_size - position)
    return digest.hexdigest()


def _zeros(digest: hashlib._Hash, count: int) -> None:
    for length in (*[_HASHED] * (count // _HASHED), count % _HASHED):
        digest.update(_ZEROS[:length])


_ZEROS = memoryview(bytes(_HASHED))
