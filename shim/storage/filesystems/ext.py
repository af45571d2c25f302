"""ext2 and ext4: what a guest can write to, each pod to a copy of its own.

There is no journal: after a crash the pod's copy is thrown away, not repaired.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from shim.errors import NodeFault
from shim.storage.filesystems.base import UUID, FileSystem, Making, refuse
from shim.storage.tools import Tools
from shim.storage.tree import Entry, Tree
from shim.threads import in_thread

_BLOCK = 4096
_MIB = 1 << 20
_SECOND = 10**9
_EPOCH = "1"  # seconds; 0 means "now" to E2FSPROGS_FAKE_TIME (e2fsprogs, lib/ext2fs/initialize.c)
_ROOT, _FIRST = 2, 11  # inode numbers: the top's, and the first that is not reserved (linux/ext2_fs.h)
_BYTES_PER_INODE = 16384  # of room for writing, as mke2fs.conf has it
# The superblock, from byte 1024 on: s_inodes_count, and s_free_inodes_count at 16 (Documentation/filesystems/ext4).
_SUPERBLOCK, _COUNTS = 1024, struct.Struct("<I12xI")
# Every feature that the image shall have, so that nothing depends on the node's mke2fs.conf.
_COMMON = ("none", "filetype", "sparse_super", "large_file", "ext_attr", "dir_index")
_EXT4 = (*_COMMON, "extents", "huge_file", "dir_nlink", "extra_isize", "flex_bg", "metadata_csum")
_ENVIRONMENT = {"E2FSPROGS_FAKE_TIME": _EPOCH, "MKE2FS_CONFIG": os.devnull}


class Ext(FileSystem):
    """By mke2fs, which sorts names; debugfs then sets what mke2fs takes from the moment and not from the content."""

    program = "mke2fs"
    package = "e2fsprogs"
    writable = True
    needs_directory = True
    fills_holes = False

    def __init__(self, name: str, features: tuple[str, ...], inode: int, last: int, largest: int) -> None:
        """`inode` is the bytes of one, `last` the last second since 1970 that fits in it, `largest` a file's bytes."""
        self.name, self._features, self._inode, self._last, self._largest = name, features, inode, last, largest

    def check(self, tree: Tree) -> None:
        """Files that are too large, times that do not fit."""
        refuse(
            self.name,
            f"files above {self._largest >> 30} GiB",
            ((path, entry) for path, entry in tree.items() if entry.size > self._largest),
        )
        refuse(
            self.name,
            "times that do not fit in 32 bits",
            ((path, entry) for path, entry in tree.items() if not -(1 << 31) <= entry.mtime // _SECOND <= self._last),
        )

    async def make(self, making: Making, tools: Tools) -> None:
        """What the content takes is reckoned from what it takes where it is; where that was too little (there it may
        be compressed), once more from the files' sizes."""
        tight, ample = (room(making.tree, making.writable, holes=holes) for holes in (True, False))
        try:
            await self._fill(making, tools, tight)
        except NodeFault:
            if ample <= tight:
                raise
            await self._fill(making, tools, ample)
        await self._settle(making, tools)

    async def _fill(self, making: Making, tools: Tools, blocks: int) -> None:
        inodes = len(making.tree) + _FIRST + 1 + making.writable * _MIB // _BYTES_PER_INODE
        await tools.run(
            tools.locate(self.program, self.package),
            *("-q", "-F", "-b", str(_BLOCK), "-I", str(self._inode), "-m", "0", "-N", str(inodes)),
            *("-O", ",".join(self._features), "-U", UUID),
            *("-E", f"hash_seed={UUID},lazy_itable_init=0,nodiscard"),
            *("-d", os.fspath(making.directory), os.fspath(making.output), str(blocks)),
            env=_ENVIRONMENT,
        )

    async def _settle(self, making: Making, tools: Tools) -> None:
        """Set the top's owner, mode and time, which mke2fs does not, and all times of access and change to one."""
        used = await in_thread(_inodes, making.output)
        script = making.output.with_name("settle")
        await in_thread(script.write_text, settlement(making.tree[b""], used))
        await tools.run(
            tools.locate("debugfs", self.package),
            *("-w", "-f", os.fspath(script), os.fspath(making.output)),
            env=_ENVIRONMENT,
        )
        await in_thread(script.unlink)


def ext2() -> Ext:
    """The plain one: small inodes, because old guests know no others; times end in 2038."""
    return Ext("ext2", _COMMON, 128, (1 << 31) - 1, 2 << 40)


def ext4() -> Ext:
    """With extents and checksums. mke2fs sets 32 bits of a time, read as signed."""
    return Ext("ext4", _EXT4, 256, (1 << 31) - 1, 16 << 40)


def room(tree: Tree, writable: int, *, holes: bool) -> int:
    """Blocks of an image that holds `tree` and has `writable` MiB left, generously: what is not used is a hole in the
    image's file. `holes` leaves the files' holes out."""
    data = sum(_blocks(entry, holes) for entry in _files(tree))
    names: dict[bytes, int] = {}
    for path in tree:
        parent, _, name = path.rpartition(b"/")
        names[parent] = names.get(parent, 0) + 12 + len(name)
    directories = sum(2 + 2 * size // _BLOCK for size in names.values())
    inodes = len(tree) + writable * _MIB // _BYTES_PER_INODE
    free = writable * _MIB // _BLOCK
    # Extents or indirect blocks, bitmaps, copies of the superblock: below 2 % together; a block of attributes for some.
    return (data + directories + free) * 104 // 100 + inodes // 8 + inodes // 16 + 512


def _files(tree: Tree) -> list[Entry]:
    """Each file once, whatever number of names it has."""
    return list({entry.identity: entry for entry in tree.values() if not stat.S_ISDIR(entry.mode)}.values())


def _blocks(entry: Entry, holes: bool) -> int:
    size = min(entry.size, entry.allocated) if holes else entry.size
    return 1 + size // _BLOCK


def _inodes(image: Path) -> int:
    """The number of the last inode in use: mke2fs fills one group after the other."""
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK)
        inodes, free = _COUNTS.unpack(file.read(_COUNTS.size))
    return int(inodes - free)


def settlement(top: Entry, used: int) -> str:
    """debugfs's commands (debugfs(8), set_inode_field); inodes by number, so that no name has to be quoted."""
    lines = [
        f"sif <{_ROOT}> mode {top.mode:#x}",
        f"sif <{_ROOT}> uid {top.uid}",
        f"sif <{_ROOT}> gid {top.gid}",
        f"sif <{_ROOT}> mtime @{top.mtime // _SECOND}",
    ]
    for number in (_ROOT, *range(_FIRST, used + 1)):
        lines += [f"sif <{number}> {field} @{_EPOCH}" for field in ("atime", "ctime")]
    return "\n".join([*lines, ""])
