"""A tar read forwards, once, whatever is in it: nothing is extracted here, and no header makes us hold much.

The parser is Python's own (tarfile); what it does with a hostile file is bounded by the stream that it reads from.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any, BinaryIO, Literal, cast

import msgspec

from shim.errors import ImageFault, ShimError
from shim.oci.archive import compression

# An extended header holds a name, a link and extended attributes, which a file system keeps to 64 KiB each (xattr(7)).
_HEADER = 1 << 20
# All that stands between two files: such a header for the one, and one for all.
_HEADERS = 2 * _HEADER
# tarfile looks for a number in an extended header with time that grows as the square of one's digits (CVE-2024-6232,
# mended in Python 3.11.10). A name hardly has so many.
_NUMBER = re.compile(rb"[0-9]{100}")
_BLOCK = 512  # bytes (tar(5))
_CHUNK = 1 << 16

Kind = Literal["file", "directory", "symlink", "hardlink", "other"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: its name as it stands there, and for a link what it says. `offset` is where its data is."""

    name: str
    kind: Kind
    size: int = 0
    target: str = ""
    offset: int = 0


class _Forward:
    """What tarfile reads from: seeks forwards by reading, and refuses a read that no header needs."""

    def __init__(self, stream: BinaryIO, watch: Callable[[bytes], object] | None) -> None:
        self._stream, self._watch, self._at = stream, watch, 0
        self._parsed = 0
        self.last = b""

    def begin(self) -> None:
        """What is read from now on belongs to another entry's headers."""
        self._parsed = 0

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if to < self._at:
            raise tarfile.ReadError("a header points backwards")
        while self._at < to and self.take(min(to - self._at, _CHUNK)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        """What a header is parsed of."""
        self._parsed += size
        if not 0 <= size <= _HEADER or self._parsed > _HEADERS:
            raise tarfile.ReadError(f"a header of {max(size, self._parsed)} bytes")
        found = self.take(size)
        if size > _BLOCK and _NUMBER.search(found):
            raise tarfile.ReadError("a header with a number of a hundred digits")
        return found

    def take(self, size: int) -> bytes:
        """The next `size` bytes, less at the end."""
        pieces = []
        left = size
        while left and (data := self._stream.read(left)):
            pieces.append(data)
            left -= len(data)
        self.last = b"".join(pieces)
        if self._watch is not None:
            self._watch(self.last)
        self._at += len(self.last)
        return self.last

    def drain(self) -> None:
        while self.take(_CHUNK):
            pass


class Content:
    """A regular file's data, to be read before the next entry is asked for."""

    def __init__(self, forward: _Forward, size: int, name: str) -> None:
        self._forward, self._left, self._name = forward, size, name

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end. Raises ImageFault where the tar ends before the file does."""
        with _named(self._name):
            data = self._forward.take(min(size, self._left, _CHUNK))
            if not data and self._left and size:
                raise tarfile.ReadError("unexpected end of data")
        self._left -= len(data)
        return data


def entries(
    stream: BinaryIO, name: str, watch: Callable[[bytes], object] | None = None
) -> Generator[tuple[Entry, Content | None], None, None]:
    """Each entry of the tar in `stream`, and a regular file's data; None too for one that is stored sparse.

    `watch` sees every byte of the stream, to the end, if the iteration goes to its end. Raises ImageFault, calling the
    tar `name`, where it is broken.
    """
    forward = _Forward(stream, watch)
    with _named(name):
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], forward), mode="r", errors="surrogateescape")
    while True:
        with _named(name):
            forward.begin()
            found = tar.next()
            if found is None:
                break
            if found.size < 0 or found.offset_data < 0:
                raise tarfile.ReadError(f"a file of {found.size} bytes")
        # It keeps every entry, for lookups that nobody makes here.
        cast(Any, tar).members.clear()
        readable = found.isreg() and not found.issparse()
        yield _entry(found), Content(forward, found.size, name) if readable else None
    with _named(name):
        # tarfile takes a header that is none for the end of the tar; other readers take it for an error.
        if forward.last.strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {forward.tell() - len(forward.last)}")
        forward.drain()


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn what tarfile and the libraries for compression raise of a hostile file into an ImageFault."""
    try:
        yield
    except ShimError:
        raise
    except Exception as error:
        ours = (tarfile.TarError, ValueError, OverflowError, RecursionError, OSError)
        if not isinstance(error, ours) and not compression.broken(error):
            raise
        raise ImageFault(f"a truncated or broken tar ({error or type(error).__name__})", subject=name) from error


def _entry(found: tarfile.TarInfo) -> Entry:
    kind: Kind = "other"
    if found.isreg():
        kind = "file"
    elif found.isdir():
        kind = "directory"
    elif found.issym():
        kind = "symlink"
    elif found.islnk():
        kind = "hardlink"
    return Entry(name=found.name, kind=kind, size=found.size, target=found.linkname, offset=found.offset_data)
