"""Paths inside an image: what links mean, and that none leads out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.errors import ImageFault
from shim.storage import inside
from shim.storage.inside import find


@pytest.fixture(params=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, resolved by the kernel and, as on Linux before 5.6, by us."""
    if request.param == "walk":

        def missing(directory: int, path: str, flags: int, resolve: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)

        monkeypatch.setattr(inside, "_openat2", missing)
    root = tmp_path / "image"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "kernel").write_bytes(b"k")
    (tmp_path / "secret").write_bytes(b"s")
    return root


@pytest.mark.parametrize("path", ["/a/b/kernel", "a/b/kernel", "//a/./b//kernel", "/a/b/../b/kernel"])
def test_plain_paths(root: Path, path: str) -> None:
    assert find(root, path, "kernel") == root / "a/b/kernel"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("k", "a/b/kernel"),
        ("k", "/a/b/kernel"),
        ("a/k", "b/kernel"),
        ("a/k", "../a/b/kernel"),
        ("a/k", "/a/../a/b/kernel"),
    ],
)
def test_links_stay_inside(root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(target)
    assert find(root, link, "kernel") == root / "a/b/kernel"


def test_links_to_directories_and_to_links(root: Path) -> None:
    (root / "x").symlink_to("/y")
    (root / "y").symlink_to("a/b")
    assert find(root, "/x/../b/kernel", "kernel") == root / "a/b/kernel"


@pytest.mark.parametrize("target", ["../secret", "../../../../../../etc/passwd", "/../secret", "a/../../secret"])
def test_links_that_climb_out(root: Path, target: str) -> None:
    (root / "k").symlink_to(target)
    with pytest.raises(ImageFault, match="leads out of the image, at /k"):
        find(root, "/k", "kernel")


def test_the_link_to_blame_is_named(root: Path) -> None:
    (root / "a" / "up").symlink_to("../..")
    (root / "k").symlink_to("a/up/secret")
    with pytest.raises(ImageFault, match=r"/k: the kernel's path leads out of the image, at /a/up"):
        find(root, "/k", "kernel")


def test_a_path_that_climbs_out(root: Path) -> None:
    with pytest.raises(ImageFault, match="leads out of the image"):
        find(root, "../secret", "kernel")


@pytest.mark.parametrize("target", ["/etc/passwd", "/secret"])
def test_absolute_links_mean_the_image(root: Path, target: str) -> None:
    (root / "k").symlink_to(target)
    with pytest.raises(ImageFault, match=r"no such kernel in the image .*links are followed inside the image"):
        find(root, "/k", "kernel")


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_directory, _fifo])
def test_not_a_regular_file(root: Path, make: Callable[[Path], None]) -> None:
    make(root / "k")
    with pytest.raises(ImageFault, match="not a regular file"):
        find(root, "/k", "kernel")


@pytest.mark.parametrize("path", ["/none", "/a/b/kernel/x", ""])
def test_missing(root: Path, path: str) -> None:
    with pytest.raises(ImageFault):
        find(root, path, "kernel")


def test_a_loop(root: Path) -> None:
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("/x")
    with pytest.raises(ImageFault, match="too many links"):
        find(root, "/x", "kernel")


@pytest.mark.parametrize("path", ["a\0b", "/" + "x" * 300, "/x" * 5000, "\udcff", "\ud800"])
def test_paths_that_cannot_be(root: Path, path: str) -> None:
    with pytest.raises(ImageFault):
        find(root, path, "kernel")


def test_no_descriptor_is_left(root: Path) -> None:
    (root / "k").symlink_to("/a/../../secret")
    (root / "l").symlink_to("/a/b/kernel")
    before = os.listdir("/proc/self/fd")
    find(root, "/l", "kernel")
    with pytest.raises(ImageFault):
        find(root, "/k", "kernel")
    assert len(os.listdir("/proc/self/fd")) == len(before)
