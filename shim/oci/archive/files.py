"""What holds an image's files: a tar, or a directory. Names are relative, with slashes, and lead nowhere else."""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from shim.errors import ImageFault, NodeFault
from shim.oci.archive import compression
from shim.oci.archive.entries import entries

# An index or configuration; containerd reads 20 MiB of one at most (core/images/archive/importer.go).
_DOCUMENT = 20 << 20
# Ten layers are usual, 127 were Docker's limit, and an archive may hold many images.
_FILES = 1 << 16
_CHUNK = 1 << 20


class Files(Protocol):
    """The files of an archive or a layout."""

    def holds(self, name: str) -> bool:
        """Whether there is a regular file of this name."""
        ...

    def size(self, name: str) -> int:
        """Its size in bytes. Raises ImageFault where it is not there."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Its content, which can be sought; the caller closes it. Raises ImageFault where it is not there."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def document(files: Files, name: str) -> bytes:
    """The whole of a small file. Raises ImageFault where it is not there, or too long to be a document."""
    if files.size(name) > _DOCUMENT:
        raise ImageFault(f"the document is longer than {_DOCUMENT >> 20} MiB", subject=name)
    with files.open(name) as file:
        return file.read()


class Directory:
    """A directory as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def holds(self, name: str) -> bool:
        path = self._path / name
        return path.is_file() and path.resolve().is_relative_to(self._path.resolve())

    def size(self, name: str) -> int:
        self._require(name)
        return (self._path / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        self._require(name)
        try:
            return (self._path / name).open("rb")
        except OSError as error:
            raise ImageFault(f"the file cannot be read: {error.strerror}", subject=name) from error

    def close(self) -> None:
        pass

    def _require(self, name: str) -> None:
        if not self.holds(name):
            raise _missing(name)


class Archive:
    """A tar of which nothing is extracted: a file's content is a part of the archive's."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """`file`, which can be sought, becomes this object's to close. Raises ImageFault where it is no tar.

        A compressed archive is unpacked into a temporary file, which has no name and is gone when it is closed.
        """
        self._file = file
        try:
            stream = compression.plain(file, name)
            if stream is not file:
                self._file = _copied(stream, name)
                file.close()
            self._places, self._links = _places(self._file, name)
        except BaseException:
            self.close()
            file.close()
            raise

    def holds(self, name: str) -> bool:
        return self._resolve(name) in self._places

    def size(self, name: str) -> int:
        return self._place(name)[1]

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Part(self._file.fileno(), *self._place(name)), _CHUNK))

    def close(self) -> None:
        self._file.close()

    def _resolve(self, name: str) -> str:
        # One step, as containerd follows them: older `docker save` links a layer that two images share.
        name = posixpath.normpath(name)
        return self._links.get(name, name)

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._places[self._resolve(name)]
        except KeyError:
            raise _missing(name) from None


def spooled(stream: BinaryIO, name: str) -> BinaryIO:
    """A copy of a stream that cannot be sought, in a temporary file without a name."""
    return _copied(stream, name)


def _copied(stream: BinaryIO, name: str) -> BinaryIO:
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller's to close
    try:
        shutil.copyfileobj(stream, copy, _CHUNK)
        copy.flush()
        copy.seek(0)
    except Exception as error:
        copy.close()
        if compression.broken(error):
            raise ImageFault(f"a truncated or broken archive ({error})", subject=name) from error
        if isinstance(error, OSError):
            raise NodeFault(f"there is no room for a copy of the archive: {error.strerror}", subject=name) from error
        raise
    except BaseException:
        copy.close()
        raise
    return copy


def _places(file: BinaryIO, name: str) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Where each file of a tar is, and where each link leads, by normalised names."""
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    for entry, _ in entries(file, name):
        place = posixpath.normpath(entry.name)
        if entry.kind == "file":
            places[place] = (entry.offset, entry.size)
        elif entry.kind == "symlink":
            links[place] = posixpath.normpath(posixpath.join(posixpath.dirname(place), entry.target))
        elif entry.kind == "hardlink" and posixpath.normpath(entry.target) in places:
            places[place] = places[posixpath.normpath(entry.target)]
        if len(places) + len(links) > _FILES:
            raise ImageFault(f"the archive holds more than {_FILES} files, so it is none of an image", subject=name)
    return places, links


def _missing(name: str) -> ImageFault:
    return ImageFault("the archive does not hold this file", subject=name, remedy="it may be cut off: copy it again")


class _Part(io.RawIOBase):
    """A stretch of a file, read without moving anybody else's place in it."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._size, self._at = descriptor, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, min(len(buffer), max(self._size - self._at, 0)), self._offset + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
