"""File system images made from directories, kept in one cache for the node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim.storage.source import Source
from shim.storage.tools import Run

#: Bytes of images that the cache keeps while nobody uses them.
LIMIT = 10 << 30


class Image(msgspec.Struct, frozen=True):
    """A file in the cache: never written again. `digest` is the SHA-256 of its bytes, in hexadecimal."""

    path: Path
    format: str
    digest: str


class Images:
    """The node's cache of images: daemons share it."""

    def __init__(self, directory: Path, run: Run, limit: int = LIMIT) -> None:
        """`directory` is made when it is first needed; `limit` is in bytes."""
        self._directory, self._run, self._limit = directory, run, limit

    async def build(
        self, source: Source, format: str, *, extra: Mapping[str, Path] = {}, writable: int = 0
    ) -> Image:
        """The image of `source` in `format`, out of the cache where it is there.

        `extra` are files or directories of the node by the path in the image at which they take the place of what is
        there; `writable` is the room, in MiB, that a file system that can be written to has beside its content.
        Raises ImageFault for what the format cannot hold, NodeFault for a missing tool, a full disk, a tool that fails.
        """
        raise NotImplementedError

    async def copy(self, image: Path, target: Path) -> None:
        """A copy that a pod may write to, sharing its blocks with the image where the file system can.

        `target` is whole or not there. Raises NodeFault.
        """
        raise NotImplementedError

    async def sweep(self) -> None:
        """Remove what daemons that were killed left half built, and images beyond the limit that nobody uses, those
        first that were not asked for longest."""
        raise NotImplementedError
