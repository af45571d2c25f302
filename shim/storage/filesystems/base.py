"""The contract of one kind of file system: what it can hold, and how an image of it is made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from shim.errors import ImageFault
from shim.storage.tools import Tools
from shim.storage.tree import Entry, Tree, shown

#: A UUID that is the same for all images: equal content makes equal bytes, and no guest finds two of them to compare.
UUID = "6f2d3c1e-0b5a-4c57-9d6e-756e696b736d"
_NAMED = 3  # entries that an error names


class Making(msgspec.Struct, frozen=True):
    """One image to make: `tree` is what is in `directory`; `writable` is room in MiB; the image becomes `output`."""

    directory: Path
    tree: Tree
    output: Path
    writable: int = 0


class FileSystem(Protocol):
    """One format, by the name that Linux has for it."""

    name: str
    #: The program that makes it, and the package that this is in; "" for our own.
    program: str
    package: str
    #: Whether a guest can write to it, so that room for that makes sense.
    writable: bool
    #: Whether its tool must be given a directory as it shall be; else it makes the image from the tree's own origins.
    needs_directory: bool
    #: Whether it stores holes as zeros.
    fills_holes: bool

    def check(self, tree: Tree) -> None:
        """Raises ImageFault with the names of what this format cannot hold."""
        ...

    async def make(self, making: Making, tools: Tools) -> None:
        """Make the image. Raises NodeFault, ImageFault, TimedOut."""
        ...


def refuse(format: str, reason: str, culprits: Iterable[tuple[bytes, Entry]]) -> None:
    """Raises ImageFault that names the first of `culprits`, where there are any."""
    names = [shown(path) for path, _ in culprits]
    if not names:
        return
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    raise ImageFault(f"{format} cannot hold {reason}: {', '.join(names[:_NAMED])}{others}")
