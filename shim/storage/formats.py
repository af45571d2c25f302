"""Recognising what is in a block device or an image file by its first bytes, which are anybody's."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from shim.errors import ImageFault, NodeFault

#: Bytes from the start that are enough for all of them: the last is btrfs's superblock, at 64 KiB.
HEAD = 0x10048

# Linux, fs/ext4/ext4.h, struct ext4_super_block, which starts at byte 1024.
_EXT = 1024
_EXT_MAGIC = 0xEF53
_HAS_JOURNAL = 0x4
# Features without which ext3 does: extents, 64bit, flex_bg; huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum.
_EXT4_INCOMPATIBLE, _EXT4_READ_ONLY = 0x40 | 0x80 | 0x200, 0x8 | 0x10 | 0x20 | 0x40 | 0x400


def _magic(name: str, offset: int, *values: bytes) -> Callable[[bytes], str | None]:
    return lambda head: name if any(head[offset : offset + len(value)] == value for value in values) else None


def _ext(head: bytes) -> str | None:
    block = head[_EXT : _EXT + 0x68]
    if len(block) < 0x68:
        return None
    inodes, blocks = struct.unpack_from("<II", block)
    (logarithm,) = struct.unpack_from("<I", block, 0x18)
    (magic,) = struct.unpack_from("<H", block, 0x38)
    (revision,) = struct.unpack_from("<I", block, 0x4C)
    # The magic has two bytes, and a lot of what is no file system has them there by chance.
    if magic != _EXT_MAGIC or not inodes or not blocks or logarithm > 6 or revision > 1:
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 0x5C) if revision else (0, 0, 0)
    if incompatible & _EXT4_INCOMPATIBLE or read_only & _EXT4_READ_ONLY:
        return "ext4"
    return "ext3" if compatible & _HAS_JOURNAL else "ext2"


def _vfat(head: bytes) -> str | None:
    """By the type that mkfs.fat writes, where FAT12 and FAT16 have it, and where FAT32 does (Microsoft's fatgen103)."""
    if head[510:512] != b"\x55\xaa" or head[:1] not in (b"\xeb", b"\xe9"):
        return None
    return "vfat" if head[0x36:0x3B] in (b"FAT12", b"FAT16") or head[0x52:0x57] == b"FAT32" else None


# Each superblock's place and magic: ECMA-119, 8.1; Linux, squashfs_fs.h, erofs_fs.h, xfs_format.h, btrfs_tree.h.
_FILE_SYSTEMS = (
    _magic("iso9660", 0x8001, b"CD001"),
    _ext,
    _magic("squashfs", 0, b"hsqs"),
    _magic("erofs", 1024, bytes.fromhex("e2e1f5e0")),
    _magic("xfs", 0, b"XFSB"),
    _magic("btrfs", 0x10040, b"_BHRfS_M"),
    _vfat,
)
# What Linux takes an initrd in (init/initramfs.c, lib/decompress.c).
_ARCHIVES = (
    _magic("cpio", 0, b"070701", b"070702"),
    _magic("gzip", 0, b"\x1f\x8b"),
    _magic("bzip2", 0, b"BZh"),
    _magic("lzma", 0, b"\x5d\x00\x00"),
    _magic("xz", 0, b"\xfd7zXZ\x00"),
    _magic("lzo", 0, b"\x89LZO"),
    _magic("lz4", 0, b"\x02\x21\x4c\x18"),
    _magic("zstd", 0, b"\x28\xb5\x2f\xfd"),
)
#: The names of archives, compressed or not, that can be an initrd.
ARCHIVES = ("cpio", "gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd")


def recognise(head: bytes) -> str | None:
    """The format of what begins with `head`, HEAD bytes or all that there are: a file system by Linux's name, or one of
    ARCHIVES; None for what is not known.

    Raises ImageFault for what is two file systems at once: what a guest saw would depend on which it tried first.
    """
    found = [name for each in _FILE_SYSTEMS if (name := each(head)) is not None]
    if len(found) > 1:
        raise ImageFault(f"it is {' and '.join(found)} at once, and a guest could mount either")
    if found:
        return found[0]
    return next((name for each in _ARCHIVES if (name := each(head)) is not None), None)


def _check(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise ImageFault("is neither a file nor a block device", subject=os.fspath(path))


def read(path: Path) -> str | None:
    """The format of a block device or a file, as `recognise` has it; blocks.

    Raises ImageFault where it is neither, NodeFault where it cannot be read.
    """
    try:
        _check(path.stat().st_mode, path)  # there are devices to which being opened does something
        # A FIFO would keep us waiting for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check(os.fstat(descriptor).st_mode, path)
            head = os.pread(descriptor, HEAD, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NodeFault(f"cannot be read: {error.strerror}", subject=os.fspath(path)) from error
    return recognise(head)
