"""The run directory and the storage directory: missing, closed, full, in the wrong place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from shim.config import Config
from shim.doctor import directories
from shim.doctor.directories import Directory
from shim.doctor.finding import Finding, Outcome

CONFIG = Config()
RUN = Directory(path=CONFIG.run_dir, below=CONFIG.run_dir, mode=0o700, owner=0, kind="tmpfs", room=1 << 30)
STORAGE = Directory(
    path=CONFIG.storage.directory, below=CONFIG.storage.directory, mode=0o700, owner=0, kind="ext4", room=1 << 40
)


def run(**changed: object) -> Finding:
    return directories.judge_run(msgspec.structs.replace(RUN, **changed), CONFIG, root=True)


def storage(**changed: object) -> Finding:
    return directories.judge_storage(msgspec.structs.replace(STORAGE, **changed), CONFIG, root=True)


def refused(number: int) -> dict[str, object]:
    return {"refusal": os.strerror(number), "number": number}


def test_as_they_should_be() -> None:
    assert run().outcome is Outcome.GOOD and storage().outcome is Outcome.GOOD
    missing = run(mode=None, owner=None, below=Path("/run"))
    assert missing.outcome is Outcome.GOOD and "will make it" in missing.what


@pytest.mark.parametrize(
    ("number", "fix"),
    [(errno.EROFS, "remount,rw"), (errno.ENOSPC, "free space"), (errno.ENOTDIR, "rm "), (errno.EIO, "dmesg")],
)
def test_where_nothing_can_be_written(number: int, fix: str) -> None:
    assert run(**refused(number)).outcome is Outcome.BAD and fix in run(**refused(number)).fix
    assert storage(**refused(number)).outcome is Outcome.DOUBTFUL and fix in storage(**refused(number)).fix


def test_who_is_not_root_has_seen_nothing() -> None:
    closed = msgspec.structs.replace(RUN, **refused(errno.EACCES))
    assert directories.judge_run(closed, CONFIG, root=False).outcome is Outcome.UNSEEN
    assert directories.judge_run(closed, CONFIG, root=True).outcome is Outcome.BAD


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"room": 1 << 20}, "remount,size"),
        ({"room": 1 << 20, "kind": "ext4"}, "free space"),
        ({"mode": 0o755}, "chmod 0700"),
        ({"owner": 1000}, "chown root"),
        ({"kind": "ext4"}, "/run"),
    ],
)
def test_a_run_directory_that_will_do_badly(changed: dict[str, object], word: str) -> None:
    found = run(**changed)
    assert found.outcome is Outcome.DOUBTFUL and word in found.fix and found.why


def test_a_run_directory_whose_sockets_would_have_no_room_for_their_names() -> None:
    config = Config(run_dir=Path("/" + "x" * 120))
    assert directories.judge_run(RUN, config, root=True).outcome is Outcome.BAD


@pytest.mark.parametrize(("changed", "word"), [({"room": 1 << 20}, "storage.room"), ({"kind": "tmpfs"}, "on a disk")])
def test_a_storage_directory_that_will_do_badly(changed: dict[str, object], word: str) -> None:
    found = storage(**changed)
    assert found.outcome is Outcome.DOUBTFUL and word in found.fix


def test_a_look_leaves_nothing(tmp_path: Path) -> None:
    seen = directories.observe(tmp_path)
    assert seen.mode is not None and seen.owner == os.getuid() and not seen.refusal and seen.room > 0
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_not_there_is_looked_at_from_above(tmp_path: Path) -> None:
    seen = directories.observe(tmp_path / "a" / "b")
    assert seen.below == tmp_path and seen.mode is None and not (tmp_path / "a").exists()


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert directories.observe(path).number == errno.ENOTDIR


def test_the_file_systems_name() -> None:
    info = "21 1 0:20 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n22 1 254:1 / / rw - ext4 /dev/vda rw\nodd\n"
    assert directories.kind_at(os.makedev(0, 20), info) == "tmpfs"
    assert directories.kind_at(os.makedev(254, 1), info) == "ext4"
    assert directories.kind_at(os.makedev(9, 9), info) == ""
