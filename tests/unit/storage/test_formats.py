"""Recognising file systems and archives by their first bytes."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ImageFault, NodeFault
from shim.storage import formats
from shim.storage.formats import ARCHIVES, HEAD, read, recognise

_NAMES = {"iso9660", "ext2", "ext3", "ext4", "squashfs", "erofs", "xfs", "btrfs", "vfat", *ARCHIVES}


def head(*parts: tuple[int, bytes]) -> bytes:
    made = bytearray(HEAD)
    for offset, part in parts:
        made[offset : offset + len(part)] = part
    return bytes(made)


def ext(compatible: int = 0, incompatible: int = 0, read_only: int = 0, revision: int = 1, block: int = 2) -> bytes:
    made = bytearray(0x68)
    struct.pack_into("<II", made, 0, 16, 64)
    struct.pack_into("<I", made, 0x18, block)
    struct.pack_into("<H", made, 0x38, 0xEF53)
    struct.pack_into("<I", made, 0x4C, revision)
    struct.pack_into("<III", made, 0x5C, compatible, incompatible, read_only)
    return bytes(made)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (head((0x8001, b"CD001")), "iso9660"),
        (head((1024, ext())), "ext2"),
        (head((1024, ext(revision=0, incompatible=0x40))), "ext2"),
        (head((1024, ext(compatible=0x4))), "ext3"),
        (head((1024, ext(compatible=0x4, incompatible=0x40))), "ext4"),
        (head((1024, ext(read_only=0x400))), "ext4"),
        (head((1024, ext(block=7))), None),
        (head((0, b"hsqs")), "squashfs"),
        (head((1024, bytes.fromhex("e2e1f5e0"))), "erofs"),
        (head((0, b"XFSB")), "xfs"),
        (head((0x10040, b"_BHRfS_M")), "btrfs"),
        (head((0, b"\xeb"), (0x36, b"FAT16   "), (510, b"\x55\xaa")), "vfat"),
        (head((0, b"\xe9"), (0x52, b"FAT32   "), (510, b"\x55\xaa")), "vfat"),
        (head((510, b"\x55\xaa")), None),
        (b"070701", "cpio"),
        (gzip.compress(b"x"), "gzip"),
        (lzma.compress(b"x"), "xz"),
        (lzma.compress(b"x", format=lzma.FORMAT_ALONE), "lzma"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"", None),
        (bytes(HEAD), None),
    ],
)
def test_what_is_recognised(first: bytes, expected: str | None) -> None:
    assert recognise(first) == expected


def test_what_is_two_at_once_is_refused() -> None:
    with pytest.raises(ImageFault, match="iso9660 and ext4 at once"):
        recognise(head((0x8001, b"CD001"), (1024, ext(incompatible=0x40))))


def test_a_file_system_with_an_archives_first_bytes() -> None:
    """An ISO 9660 image may begin with anything."""
    assert recognise(head((0, b"\x1f\x8b"), (0x8001, b"CD001"))) == "iso9660"


@given(st.binary(max_size=2048))
def test_any_bytes(data: bytes) -> None:
    try:
        assert recognise(data) in {None, *_NAMES}
    except ImageFault as error:
        assert "at once" in str(error)


@given(st.lists(st.tuples(st.integers(0, HEAD), st.binary(max_size=64)), max_size=4), st.integers(0, HEAD))
def test_superblocks_that_are_cut_off_or_written_over(parts: list[tuple[int, bytes]], length: int) -> None:
    parts = [(1024, ext(0xFFFF, 0xFFFF, 0xFFFF)), *parts]
    try:
        assert recognise(head(*parts)[:length]) in {None, *_NAMES}
    except ImageFault as error:
        assert "at once" in str(error)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(head((0, b"hsqs")))
    assert read(tmp_path / "image") == "squashfs"
    with pytest.raises(ImageFault, match="neither a file nor a block device"):
        read(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ImageFault, match="neither"):
        read(tmp_path / "fifo")
    with pytest.raises(NodeFault, match="No such file"):
        read(tmp_path / "none")


def test_each_archive_is_named_once() -> None:
    assert len(formats._ARCHIVES) == len(ARCHIVES)
