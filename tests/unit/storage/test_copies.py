"""Copies of sparse files: whole or not there."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from shim.storage import copies


@pytest.fixture
def image(tmp_path: Path) -> Path:
    with (tmp_path / "image").open("wb") as file:
        file.write(b"head")
        file.seek(64 << 20)
        file.write(b"middle" * 1000)
        file.truncate(256 << 20)
    (tmp_path / "image").chmod(0o444)
    return tmp_path / "image"


@pytest.mark.parametrize("kernel", [True, False])
def test_a_copy_keeps_the_holes(kernel: bool, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:

        def cannot(*_: object) -> int:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", cannot)
    (tmp_path / "target").write_text("what was there before")
    copies.copy(image, tmp_path / "target", threading.Event())
    status = (tmp_path / "target").stat()
    assert (status.st_size, status.st_mode & 0o777) == (256 << 20, 0o600)
    assert status.st_blocks * 512 < 1 << 20
    with (tmp_path / "target").open("rb") as file:
        assert file.read(4) == b"head"
        file.seek(64 << 20)
        assert file.read(6001) == b"middle" * 1000 + b"\0"
    assert sorted(os.listdir(tmp_path)) == ["image", "target"]


def test_a_copy_that_is_stopped_leaves_nothing(image: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    copies.copy(image, tmp_path / "target", stop)
    assert os.listdir(tmp_path) == ["image"]


def test_a_copy_that_fails_leaves_what_was_there(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    (tmp_path / "target").write_text("before")
    with pytest.raises(OSError, match="No space"):
        copies.copy(image, tmp_path / "target", threading.Event())
    assert (tmp_path / "target").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["image", "target"]


def test_what_a_killed_copy_left_is_overwritten(image: Path, tmp_path: Path) -> None:
    (tmp_path / ".target.partial").write_text("half")
    copies.copy(image, tmp_path / "target", threading.Event())
    assert sorted(os.listdir(tmp_path)) == ["image", "target"]


def test_a_link_in_the_partials_place_is_not_followed(image: Path, tmp_path: Path) -> None:
    (tmp_path / ".target.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        copies.copy(image, tmp_path / "target", threading.Event())
    assert not (tmp_path / "victim").exists()
