"""ISO 9660 with Rock Ridge, which even small guests read; names keep their case and bytes."""

from __future__ import annotations

import os

from shim.storage.filesystems.base import FileSystem, Making, refuse
from shim.storage.tools import Tools
from shim.storage.tree import Tree

_FILE = (400 << 30) - (200 << 10)  # bytes (xorriso(1), -compliance iso_9660_level=3)
_SECOND = 10**9
# A year in a directory record is one byte, from 1900 (ECMA-119, 9.1.5): Rock Ridge's short times have the same form.
_FIRST, _LAST = -2208988800, 5869583999


class Iso9660(FileSystem):
    """By xorriso: no startup file of the node's takes part, links are stored and never followed."""

    name = "iso9660"
    program = "xorriso"
    package = "xorriso"
    writable = False
    needs_directory = True
    fills_holes = True

    def check(self, tree: Tree) -> None:
        """Files above 400 GiB, times outside 1900 to 2155."""
        refuse(
            self.name, "files of 400 GiB or more", ((path, entry) for path, entry in tree.items() if entry.size > _FILE)
        )
        refuse(
            self.name,
            "times before 1900 or after 2155",
            ((path, entry) for path, entry in tree.items() if not _FIRST <= entry.mtime // _SECOND <= _LAST),
        )

    async def make(self, making: Making, tools: Tools) -> None:
        """Hard links share their blocks without -hardlinks, which would also store the node's inode numbers; extended
        attributes would be kept in a form that xorriso alone reads. Times of access and of change are no content."""
        await tools.run(
            tools.locate(self.program, self.package),
            *("-no_rc", "-report_about", "WARNING", "-abort_on", "FAILURE", "-return_with", "SORRY", "32"),
            *("-compliance", "iso_9660_level=3:deep_paths:long_paths", "-padding", "0"),
            *("-hardlinks", "off", "-disk_dev_ino", "off", "-xattr", "off", "-acl", "off", "-follow", "off"),
            *("-outdev", f"stdio:{making.output}", "-volid", "ROOT"),
            *("-map", os.fspath(making.directory), "/"),
            *("-alter_date_r", "a-c", "=0", "/", "--", "-commit"),
            env={"SOURCE_DATE_EPOCH": "0"},
        )
