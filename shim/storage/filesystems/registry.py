"""The formats that images can be made in."""

from __future__ import annotations

from shim.errors import InvalidRequest
from shim.storage.filesystems.base import FileSystem
from shim.storage.filesystems.cpio import Cpio
from shim.storage.filesystems.erofs import Erofs
from shim.storage.filesystems.ext import ext2, ext4
from shim.storage.filesystems.iso9660 import Iso9660
from shim.storage.filesystems.squashfs import Squashfs

_ALL: dict[str, FileSystem] = {each.name: each for each in (Iso9660(), ext2(), ext4(), Squashfs(), Erofs(), Cpio())}

#: Their names, as Linux has them.
FORMATS: tuple[str, ...] = tuple(_ALL)


def file_system(format: str) -> FileSystem:
    """Raises InvalidRequest with the formats that there are."""
    found = _ALL.get(format)
    if found is None:
        raise InvalidRequest("is not a format that images are made in", subject=format, remedy=f"use {', '.join(_ALL)}")
    return found
