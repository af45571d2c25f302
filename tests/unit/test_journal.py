"""The journal: atomic records that survive a reader, a torn file and a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from shim.errors import NodeFault
from shim.journal import Journal


class Note(msgspec.Struct):
    text: str


def opened(tmp_path: Path) -> Journal[Note]:
    journal = Journal(tmp_path / "journal", Note)
    journal.open()
    return journal


def test_records_come_back(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.write("a@b", Note("one"))
    journal.write("a@b", Note("two"))
    journal.write("a@c", Note("three"))
    assert journal.records() == {"a@b": Note("two"), "a@c": Note("three")}
    journal.forget("a@b")
    journal.forget("a@b")
    assert list(journal.records()) == ["a@c"]
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["a@c.json"]


def test_each_step_is_told_before_it_is_on_disk_and_after(tmp_path: Path) -> None:
    told: list[tuple[str, str, bool, bool]] = []

    def step(action: str, key: str, *, done: bool) -> None:
        told.append((action, key, done, (tmp_path / "journal" / f"{key}.json").exists()))

    journal = Journal(tmp_path / "journal", Note, step)
    journal.open()
    journal.write("a", Note("one"))
    journal.forget("a")
    assert told == [
        ("write", "a", False, False),
        ("write", "a", True, True),
        ("forget", "a", False, True),
        ("forget", "a", True, False),
    ]


def test_a_record_that_cannot_be_forgotten_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has become read-only: what it spoke of is gone."""
    journal = opened(tmp_path)
    journal.write("a", Note("one"))

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "unlink", refused)
    journal.forget("a")
    assert list(journal.records()) == ["a"]


def test_only_root_may_look(tmp_path: Path) -> None:
    opened(tmp_path)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700


def test_a_broken_record_hides_no_other(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.write("good", Note("x"))
    (tmp_path / "journal" / "bad.json").write_text("{")
    assert list(journal.records()) == ["good"]
    assert (tmp_path / "journal" / "bad.json").exists()


def test_a_full_disk_is_an_error_and_the_old_record_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    journal.write("a", Note("old"))

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NodeFault, match="No space left"):
        journal.write("a", Note("new"))
    monkeypatch.undo()
    assert journal.records() == {"a": Note("old")}
