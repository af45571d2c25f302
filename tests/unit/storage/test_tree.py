"""What is read of a directory, and how others are put over it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.errors import ImageFault, NodeFault
from shim.storage.tree import Tree, fingerprint, graft, layer, shown, survey
from tests.unit.storage.fake import directory, entry


def link(target: bytes) -> object:
    return entry(stat.S_IFLNK | 0o777, target=target)


def test_parents_come_first_and_names_by_their_bytes(tmp_path: Path) -> None:
    for name in ("b/y", "b/x", "a-", "a/z", "B"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(survey(tmp_path)) == [b"", b"B", b"a", b"a/z", b"a-", b"b", b"b/x", b"b/y"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "odd").symlink_to("a//b/")
    tree = survey(tmp_path)
    assert set(tree) == {b"", b"out", b"odd"}
    assert tree[b"odd"].target == b"a//b/"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NodeFault, match=r"none: cannot be read: No such file"):
        survey(tmp_path / "none")
    with pytest.raises(NodeFault, match="none: the layer cannot be read"):
        layer(tmp_path / "none")


def test_a_path_that_no_tool_takes(tmp_path: Path) -> None:
    name = "d" * 200
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    with pytest.raises(ImageFault, match="path longer than"):
        survey(tmp_path)


def test_more_than_an_image_can_be_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shim.storage.tree._MOST", 3)
    for number in range(2):
        (tmp_path / str(number)).write_text("")
    assert len(survey(tmp_path)) == 3
    (tmp_path / "more").write_text("")
    with pytest.raises(ImageFault, match="more than the 3 entries"):
        survey(tmp_path)


def _chmod(top: Path) -> None:
    (top / "file").chmod(0o600)


def _content(top: Path) -> None:
    times = (top / "file").stat()
    (top / "file").write_text("yyy")
    os.utime(top / "file", ns=(times.st_atime_ns, times.st_mtime_ns))


def _name(top: Path) -> None:
    (top / "file").rename(top / "elif")


def _replaced(top: Path) -> None:
    (top / "new").write_text("xxx")
    (top / "new").rename(top / "file")


def _attribute(top: Path) -> None:
    os.setxattr(top / "file", "user.x", b"1")


def _linked(top: Path) -> None:
    os.link(top / "file", top.parent / "elsewhere")


@pytest.mark.parametrize("change", [_chmod, _content, _name, _replaced, _attribute, _linked])
def test_a_fingerprint_changes_with_anything(change: Callable[[Path], None], tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("xxx")
    before = fingerprint(survey(top))
    (top / "file").read_text()
    assert fingerprint(survey(top)) == before
    change(top)
    assert fingerprint(survey(top)) != before


def base() -> Tree:
    return {
        b"": directory(1, 0o750),
        b"data": directory(2),
        b"data-": entry(inode=3),
        b"data/old": entry(inode=4),
        b"etc": directory(5),
        b"etc/file": entry(inode=6),
        b"loop": entry(stat.S_IFLNK, target=b"loop"),
        b"run": entry(stat.S_IFLNK, target=b"/var/../data"),
        b"up": entry(stat.S_IFLNK, target=b"../../etc"),
    }


ONE = {b"": entry(inode=99)}
SOME = {b"": directory(98), b"new": entry(inode=97)}


@pytest.mark.parametrize(
    ("path", "addition", "place", "gone", "come"),
    [
        (b"/etc/file", ONE, b"etc/file", set(), set()),
        (b"etc//./file", ONE, b"etc/file", set(), set()),
        (b"/data", SOME, b"data", {b"data/old"}, {b"data/new"}),
        (b"/data", ONE, b"data", {b"data/old"}, set()),
        (b"/data/sub/deep", ONE, b"data/sub/deep", set(), {b"data/sub", b"data/sub/deep"}),
        (b"/run", ONE, b"run", set(), set()),
        (b"/run/lock", ONE, b"data/lock", set(), {b"data/lock", b"var"}),
    ],
)
def test_grafting(path: bytes, addition: Tree, place: bytes, gone: set[bytes], come: set[bytes]) -> None:
    grown, places = graft(base(), {path: addition})
    assert places == {path: place}
    assert set(base()) - set(grown) == gone
    assert set(grown) - set(base()) == come - {b"var"}
    assert grown[place].inode == addition[b""].inode
    # Parents first, names by their bytes within each directory: as a survey of such a directory would have it.
    assert list(grown) == sorted(grown, key=lambda name: name.split(b"/") if name else [])


def test_directories_made_on_the_way_are_as_the_top() -> None:
    grown, _ = graft(base(), {b"/a/b/c": ONE})
    assert [stat.S_IMODE(grown[name].mode) for name in (b"a", b"a/b")] == [0o750, 0o750]
    assert grown[b"a"].identity != grown[b"a/b"].identity


def test_two_grafts_of_one_file_are_two_files() -> None:
    grown, _ = graft(base(), {b"/one": ONE, b"/two": ONE})
    assert grown[b"one"].identity != grown[b"two"].identity


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (b"/", "image's top"),
        (b"/etc/..", "image's top"),
        (b"/../x", "leads out of the image"),
        (b"/up/x", "leads out of the image"),
        (b"/loop/x", "too many links"),
        (b"/etc/file/x", "etc/file is not a directory"),
        (b"/x\0y", "cannot be a path"),
        (b"/" + b"n" * 256, "cannot be a path"),
    ],
)
def test_where_nothing_can_be_put(path: bytes, message: str) -> None:
    with pytest.raises(ImageFault, match=message):
        graft(base(), {path: ONE})


def test_any_path_can_be_shown() -> None:
    assert shown(b"plain \xc3\xa9") == "plain \xe9"
    assert shown(b"a\xff\n\x1b[31m").isprintable()
    assert shown(b"") == "/"
