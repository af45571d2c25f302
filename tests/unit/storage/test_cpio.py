"""cpio archives, read back by a parser of the format."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import ImageFault, NodeFault
from shim.storage.filesystems import cpio
from shim.storage.filesystems.base import Making
from shim.storage.filesystems.cpio import Cpio, members
from shim.storage.tree import Entry, survey
from tests.unit.storage.fake import directory, entry

Member = tuple[int, int, int, int, int, int, bytes, bytes]


def parse(archive: bytes) -> list[Member]:
    """Number, mode, owner, group, links, time, name, content of each member (buffer-format.rst), to the trailer."""
    assert len(archive) % 512 == 0
    found: list[Member] = []
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        numbers = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        number, mode, uid, gid, links, mtime, size, *_, length, _ = numbers
        name = archive[position + 110 : position + 110 + length]
        assert name[-1:] == b"\0"
        position = -(-(position + 110 + length) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert not archive[position:].strip(b"\0")
            return found
        found.append((number, mode, uid, gid, links, mtime, name[:-1], archive[position : position + size]))
        position = -(-(position + size) // 4) * 4


def written(top: Path, output: Path) -> list[Member]:
    tree = survey(top)
    Cpio().check(tree)
    output.unlink(missing_ok=True)
    cpio._write(Making(top, tree, output), threading.Event())
    return parse(output.read_bytes())


_NAME = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..", cpio._TRAILER)
)
_CONTENT = st.one_of(st.binary(max_size=40), st.tuples(st.just("link"), st.binary(min_size=1, max_size=20)))
_TREE = st.recursive(_CONTENT, lambda below: st.dictionaries(_NAME, below, max_size=4), max_leaves=12)


def plant(tree: object, path: str) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, below in tree.items():
            plant(below, os.path.join(path, os.fsdecode(name)))
    elif isinstance(tree, tuple):
        os.symlink(os.fsdecode(tree[1].replace(b"\0", b"0")), path)
    else:
        assert isinstance(tree, bytes)
        with open(path, "wb") as file:
            file.write(tree)


def flat(tree: object, path: bytes = b".") -> dict[bytes, tuple[int, bytes]]:
    if isinstance(tree, dict):
        found = {path: (stat.S_IFDIR, b"")}
        for name, below in tree.items():
            found |= flat(below, name if path == b"." else path + b"/" + name)
        return found
    if isinstance(tree, tuple):
        return {path: (stat.S_IFLNK, tree[1].replace(b"\0", b"0"))}
    assert isinstance(tree, bytes)
    return {path: (stat.S_IFREG, tree)}


@given(tree=st.dictionaries(_NAME, _TREE, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_what_goes_in_comes_out(tree: dict[bytes, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("tree")
    plant(tree, str(place / "top"))
    found = written(place / "top", place / "archive")
    assert {name: (stat.S_IFMT(mode), data) for _, mode, _, _, _, _, name, data in found} == flat(tree)
    # Linux makes a file only in a directory that it has.
    seen: set[bytes] = set()
    for *_, name, _ in found:
        assert name == b"." or name.rpartition(b"/")[0] in {b"", *seen}
        seen.add(name)


def test_names_of_one_file_share_a_number_and_the_last_has_the_bytes(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "b").write_text("content")
    os.link(top / "b", top / "a")
    os.link(top / "b", top / "z")
    (top / "other").write_text("o")
    found = written(top, tmp_path / "archive")
    names = [member for member in found if member[6] in (b"a", b"b", b"z")]
    assert [(name, links, data) for *_, links, _, name, data in names] == [
        (b"a", 3, b""),
        (b"b", 3, b""),
        (b"z", 3, b"content"),
    ]
    assert len({number for number, *_ in names}) == 1
    assert len({number for number, *_ in found}) == 3


def test_a_large_file_with_a_hole(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    with (top / "file").open("wb") as file:
        file.seek(9 << 20)
        file.write(b"end")
    assert written(top, tmp_path / "archive")[1][7] == bytes(9 << 20) + b"end"


@pytest.mark.parametrize(
    ("name", "culprit", "message"),
    [
        (b"large", entry(size=1 << 32), "files of 4 GiB or more: large"),
        (b"old", entry(mtime=-1), "times before 1970"),
        (b"new", entry(mtime=(1 << 32) * 10**9), "after 2106: new"),
        (b"TRAILER!!!", entry(), "ends an archive"),
    ],
)
def test_what_it_cannot_hold(name: bytes, culprit: Entry, message: str) -> None:
    with pytest.raises(ImageFault, match=message):
        Cpio().check({b"": directory(), name: culprit})


def test_a_file_that_became_another(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("as surveyed")
    tree = survey(top)
    (top / "file").unlink()
    (top / "file").symlink_to("/etc/passwd")
    with pytest.raises(NodeFault, match="file: cannot be read"):
        cpio._write(Making(top, tree, tmp_path / "archive"), threading.Event())
    (top / "file").unlink()
    (top / "file").write_text("longer than it was")
    with pytest.raises(NodeFault, match="changed while"):
        cpio._write(Making(top, tree, tmp_path / "other"), threading.Event())


def test_device_numbers() -> None:
    device = msgspec.structs.replace(entry(stat.S_IFBLK | 0o600), rdev=os.makedev(259, 70000))
    _, (head, _, has_bytes) = members({b"": directory(), b"disk": device})
    assert (head[78:86], head[86:94], has_bytes) == (b"00000103", b"00011170", False)
