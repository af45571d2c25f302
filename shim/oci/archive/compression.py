"""Compressed streams, told by their first bytes as containerd does (pkg/archive/compression): a media type may lie."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
import zlib
from typing import IO, BinaryIO, cast

from shim.errors import NodeFault

_GZIP = b"\x1f\x8b"  # RFC 1952
_ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878
# Skippable frames, with which some writers begin (RFC 8878, 3.1.2): 0x184D2A50 to 0x184D2A5F, little-endian.
_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))


def plain(stream: BinaryIO, name: str) -> BinaryIO:
    """What `stream`, which can seek and stands at its beginning, holds uncompressed; itself where it is not compressed.

    `name` is what errors call it. Raises NodeFault where it is compressed with zstd, which nothing here can read.
    """
    magic = stream.read(4)
    stream.seek(0)
    if magic.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb"))
    if magic == _ZSTD or magic in _SKIPPABLE:
        return _zstd(stream, name)
    return stream


def _zstd(stream: BinaryIO, name: str) -> BinaryIO:
    # Python has it from 3.14; before that there is the same module under another name.
    library = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return cast(BinaryIO, importlib.import_module(library).ZstdFile(stream, mode="r"))
    except ImportError as error:
        raise NodeFault(
            "it is compressed with zstd, for which a library is missing",
            subject=name,
            remedy="install Python's backports.zstd, or write the image with gzip",
        ) from error


def broken(error: Exception) -> bool:
    """Whether an error is what the libraries raise of a stream that is not what it says."""
    return isinstance(error, EOFError | zlib.error | gzip.BadGzipFile) or type(error).__name__ == "ZstdError"


class Compressor(io.RawIOBase):
    """A gzip stream onto `sink` whose bytes depend on nothing but what is written: no name, no time."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile(filename="", fileobj=sink, mode="wb", compresslevel=6, mtime=0)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._gzip.write(data)

    def close(self) -> None:
        if not self.closed:
            self._gzip.close()
        super().close()
