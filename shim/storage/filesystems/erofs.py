"""erofs: read-only, uncompressed here, and so the quickest to make and to read."""

from __future__ import annotations

import os

from shim.storage.filesystems.base import UUID, FileSystem, Making, refuse
from shim.storage.tools import Tools
from shim.storage.tree import Tree

# erofs-utils 1.5 cuts a name's last byte off and then does not find the file (lib/inode.c, erofs_d_alloc).
_NAME = 254
_SECOND = 10**9


class Erofs(FileSystem):
    """By mkfs.erofs, which sorts names; times are kept to the nanosecond."""

    name = "erofs"
    program = "mkfs.erofs"
    package = "erofs-utils"
    writable = False
    needs_directory = True
    fills_holes = True

    def check(self, tree: Tree) -> None:
        """Names of the longest kind that there is; times before 1970, which are the newest to a program that has them
        unsigned."""
        refuse(
            self.name,
            f"names longer than {_NAME} bytes",
            ((path, entry) for path, entry in tree.items() if len(path.rpartition(b"/")[2]) > _NAME),
        )
        refuse(self.name, "times before 1970", (each for each in tree.items() if each[1].mtime < 0))

    async def make(self, making: Making, tools: Tools) -> None:
        """The image's own time is given, or it would be that of its making. Newer files would get it, too, so it is
        the newest one's."""
        newest = max(entry.mtime for entry in making.tree.values())
        await tools.run(
            tools.locate(self.program, self.package),
            *("--quiet", "-U", UUID, "--preserve-mtime"),
            os.fspath(making.output),
            os.fspath(making.directory),
            env={"SOURCE_DATE_EPOCH": str(max(0, newest // _SECOND + 1))},
        )
