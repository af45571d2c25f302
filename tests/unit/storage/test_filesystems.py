"""What each format refuses, and what is asked of its tool."""

from __future__ import annotations

import stat

import pytest

from shim.errors import ImageFault
from shim.storage.filesystems.base import refuse
from shim.storage.filesystems.ext import room, settlement
from shim.storage.filesystems.registry import FORMATS, file_system
from shim.storage.tree import Entry
from tests.unit.storage.fake import directory, entry

_SECOND = 10**9


@pytest.mark.parametrize(
    ("format", "culprit", "message"),
    [
        ("iso9660", entry(size=400 << 30), "files of 400 GiB or more: culprit"),
        ("iso9660", entry(mtime=5869584000 * _SECOND), "after 2155"),
        ("ext2", entry(size=(2 << 40) + 1), "files above 2048 GiB"),
        ("ext2", entry(mtime=(1 << 31) * _SECOND), "32 bits"),
        ("ext4", entry(size=(16 << 40) + 1), "files above 16384 GiB"),
        ("ext4", entry(mtime=-((1 << 31) + 1) * _SECOND), "32 bits"),
        ("squashfs", entry(mtime=-1), "times before 1970"),
        ("squashfs", entry(mtime=(1 << 32) * _SECOND), "after 2106"),
        ("erofs", entry(mtime=-1), "times before 1970"),
        ("cpio", entry(mtime=-1), "times before 1970"),
    ],
)
def test_what_is_refused_is_named(format: str, culprit: Entry, message: str) -> None:
    kind = file_system(format)
    kind.check({b"": directory(), b"fine": entry(size=5)})
    with pytest.raises(ImageFault, match=f"{format} cannot hold .*{message}"):
        kind.check({b"": directory(), b"culprit": culprit})


def test_three_are_named_and_the_others_counted() -> None:
    with pytest.raises(ImageFault, match=r"x cannot hold that: 0, 1, 2 and 4 more$"):
        refuse("x", "that", ((b"%d" % number, entry()) for number in range(7)))


def test_every_format_can_hold_nothing() -> None:
    for format in FORMATS:
        file_system(format).check({b"": directory()})


def test_the_room_of_an_image() -> None:
    tree = {b"": directory(), b"file": entry(size=1 << 30, allocated=1 << 20, inode=2)}
    tight, ample = room(tree, 0, holes=True), room(tree, 0, holes=False)
    assert 256 < tight < 2048 < 1 << 18 < ample
    assert room({**tree, b"same": tree[b"file"]}, 0, holes=False) - ample < 2
    assert room(tree, 100, holes=True) - tight > 100 << 8


def test_debugfs_is_told_inodes_by_number() -> None:
    top = Entry(
        origin=b"", mode=stat.S_IFDIR | 0o1750, uid=1000, gid=70000, size=0, mtime=5 * _SECOND, ctime=0, inode=(1, 1),
        rdev=0, links=2, allocated=0,
    )  # fmt: skip
    lines = settlement(top, 12).splitlines()
    assert lines[:4] == ["sif <2> mode 0x43e8", "sif <2> uid 1000", "sif <2> gid 70000", "sif <2> mtime @5"]
    assert lines[4:] == [f"sif <{inode}> {field} @1" for inode in (2, 11, 12) for field in ("atime", "ctime")]
