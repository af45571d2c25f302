"""squashfs: compressed, read-only, with everything that Linux knows of a file but fractions of a second."""

from __future__ import annotations

import os

from shim.storage.filesystems.base import FileSystem, Making, refuse
from shim.storage.tools import Tools
from shim.storage.tree import Tree

_SECONDS = 1 << 32  # times are unsigned, 32 bits wide (Linux, fs/squashfs/squashfs_fs.h)
_SECOND = 10**9
_MEMORY = "128M"  # for its queues, of which it would take a quarter of the node's


class Squashfs(FileSystem):
    """By mksquashfs, which sorts names and writes the same bytes with any number of threads (since 4.4)."""

    name = "squashfs"
    program = "mksquashfs"
    package = "squashfs-tools"
    writable = False
    needs_directory = True
    fills_holes = False

    def check(self, tree: Tree) -> None:
        """Times before 1970 or after 2106."""
        refuse(
            self.name,
            "times before 1970 or after 2106",
            ((path, entry) for path, entry in tree.items() if not 0 <= entry.mtime // _SECOND < _SECONDS),
        )

    async def make(self, making: Making, tools: Tools) -> None:
        """gzip, because every kernel with squashfs has it."""
        await tools.run(
            tools.locate(self.program, self.package),
            os.fspath(making.directory),
            os.fspath(making.output),
            *("-noappend", "-no-progress", "-quiet", "-exit-on-error"),
            *("-comp", "gzip", "-xattrs", "-mkfs-time", "0"),
            *("-mem", _MEMORY, "-processors", str(max(1, (os.cpu_count() or 1) // 2))),
        )
