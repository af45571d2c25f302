"""Layers laid over each other, as an engine would: what is hidden, what is followed, what cannot be."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from shim.errors import ImageFault
from shim.oci.archive.entries import entries
from shim.oci.archive.tree import Directory, File, Symlink, Tree
from shim.oci.archive.unpack import unpack
from tests.unit.oci.archive.making import DEVICE, DIRECTORY, FIFO, HARD, LINK, Content, tar

Layers = list[list[tuple[str, Content]]]


def tree(layers: Layers) -> Tree:
    made = Tree()
    for number, layer in enumerate(layers):
        made.apply(number, (entry for entry, _ in entries(io.BytesIO(tar(layer)), "layer")))
    return made


def names(layers: Layers) -> set[str]:
    """Every path that is no directory."""
    found: set[str] = set()

    def collect(directory: Directory, at: str) -> None:
        for name, node in directory.children.items():
            if isinstance(node, Directory):
                collect(node, f"{at}/{name}")
            else:
                found.add(f"{at}/{name}")

    collect(tree(layers).top, "")
    return found


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([[("a", b"1"), ("d/b", b"2")]], {"/a", "/d/b"}),
        ([[("a", b"1"), ("d/b", b"2")], [(".wh.a", b"")]], {"/d/b"}),
        ([[("d/a", b"1"), ("d/b", b"2")], [("d/.wh.a", b"")]], {"/d/b"}),
        ([[("d/a", b"1"), ("d/e/b", b"2")], [(".wh.d", b"")]], set()),
        ([[("d/a", b"1"), ("d/b", b"2")], [("d/.wh..wh..opq", b""), ("d/c", b"")]], {"/d/c"}),
        # An opaque directory hides what is below it, whichever entry comes first.
        ([[("d/a", b"1"), ("d/b", b"2")], [("d/c", b""), ("d/.wh..wh..opq", b"")]], {"/d/c"}),
        ([[("a", b"1")], [(".wh..wh.plnk", b""), ("b", b"")]], {"/a", "/b"}),
        ([[("d/a", b"1")], [("d", (DIRECTORY, ""))]], {"/d/a"}),
        ([[("d/a", b"1")], [("d", b"a file now")]], {"/d"}),
        ([[("d", b"1")], [("d", (DIRECTORY, "")), ("d/a", b"")]], {"/d/a"}),
        # Links are followed in the layer itself; below one of a lower layer is a directory that hides it.
        ([[("usr/lib/a", b"1"), ("lib", (LINK, "usr/lib")), ("lib/b", b"")]], {"/usr/lib/a", "/usr/lib/b", "/lib"}),
        ([[("usr/lib/a", b"1"), ("lib", (LINK, "usr/lib"))], [("lib/b", b"")]], {"/usr/lib/a", "/lib/b"}),
        ([[("d/a", b"1")], [(".wh.d", b"")], [("d/b", b"")]], {"/d/b"}),
        ([[("d/a", b"1")], [(".wh.d", b""), ("d/b", b"")]], {"/d/b"}),
        ([[("d/a", b"1")], [(".wh.d", b""), ("d", (DIRECTORY, ""))]], set()),
        ([[("d/e/a", b"1")], [("d/e/b", b""), ("d/.wh..wh..opq", b"")]], {"/d/e/b"}),
        ([[("x", (LINK, "/deep/down")), ("x/a", b"")]], {"/x", "/deep/down/a"}),
        # Out of the image is not out of the tree: an engine stops at the top too.
        ([[("../../a", b"1"), ("/b", b"2"), ("d/../../c", b"3")]], {"/a", "/b", "/c"}),
        ([[("out", (LINK, "../../../etc")), ("out/a", b"")]], {"/out", "/etc/a"}),
        ([[("a", b"1"), ("b", (HARD, "a"))]], {"/a", "/b"}),
        ([[("a", b"1")], [("b", (HARD, "/a"))], [(".wh.a", b"")]], {"/b"}),
        ([[("dev/x", (DEVICE, "")), ("f", (FIFO, ""))]], {"/dev/x", "/f"}),
        ([[("./", (DIRECTORY, "")), ("./a", b"")]], {"/a"}),
        ([[]], set()),
    ],
)
def test_what_is_left(layers: Layers, left: set[str]) -> None:
    assert names(layers) == left


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        ([("a", b""), ("a/b", b"")], "no directory"),
        ([("b", (HARD, "a"))], "hard link to a"),
        ([("d", (DIRECTORY, "")), ("b", (HARD, "d"))], "hard link to d"),
        ([("b", (HARD, "../../etc/passwd"))], "hard link"),
        ([(".wh...", b"")], "whiteout of nothing"),
        ([("l", (LINK, "l")), ("l/a", b"")], "too many links"),
        ([("n" * 5000, b"")], "no file system"),
        ([("l", (LINK, "n" * 5000))], "no file system"),
    ],
)
def test_what_no_engine_could_unpack(layer: list[tuple[str, Content]], match: str) -> None:
    with pytest.raises(ImageFault, match=match):
        tree([layer])


def test_a_path_is_followed_inside() -> None:
    made = tree([[("k", b"1"), ("d/l", (LINK, "/e")), ("e", (LINK, "d/../k")), ("out", (LINK, "../k"))]])
    assert [(place, type(node)) for place, node in made.walk("/d/l")] == [
        ("/d", Directory), ("/d/l", Symlink), ("/e", Symlink), ("/d", Directory), ("/k", File),
    ]  # fmt: skip
    # Above the top is nowhere: whoever looks for it on disk says so.
    assert [place for place, _ in made.walk("out")] == ["/out"]
    assert [place for place, _ in made.walk("k/x")] == ["/k"]
    assert [place for place, _ in made.walk("none")] == []
    assert made.size() == (1, 1)


def test_only_what_is_asked_for_is_unpacked(tmp_path: Path) -> None:
    layer: list[tuple[str, Content]] = [
        ("k", b"kernel"), ("l", (LINK, "/k")), ("other", b"x" * 100), ("h", (HARD, "k")), ("f", (FIFO, "")),
        ("../../../../evil", b"x"), ("to", (LINK, str(tmp_path))), ("to/evil", b"x"), ("big", bytes(1 << 20)),
    ]  # fmt: skip
    made = tree([layer])
    root = tmp_path / "root"
    root.mkdir()
    asked = ["l", "h", "f", "none", "../evil", "/to/evil"]
    unpack(made, asked, root, lambda number: entries(io.BytesIO(tar(layer)), "layer"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    assert (root / "k").read_bytes() == b"kernel" == (root / "h").read_bytes()
    assert (root / "l").is_symlink() and (root / "f").is_fifo()
    assert not (root / "other").exists() and not (root / "big").exists()
    # Where it leads to in the image, below the root, and not where it does on this machine.
    assert (root / str(tmp_path).lstrip("/") / "evil").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["n" * 300, "é" * 200])
def test_a_name_that_no_disk_takes(tmp_path: Path, name: str) -> None:
    layer: list[tuple[str, Content]] = [(name, b"")]
    with pytest.raises(ImageFault, match="cannot be unpacked"):
        unpack(tree([layer]), [name], tmp_path, lambda number: entries(io.BytesIO(tar(layer)), "layer"))


def test_directories_that_nobody_lists_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shim.oci.archive.tree._NODES", 100)
    with pytest.raises(ImageFault, match="more than 100 files and directories"):
        tree([[("a/" * 200 + "f", b"")]])
