"""Reading a container's log: its format, whose it is, and how it goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.cli import log_files
from shim.cli.log_files import Again, Source, current, follow, source
from shim.cli.log_lines import Line, Reader, after, since
from shim.cli.logs import follow_log
from shim.errors import InvalidRequest, NodeFault, NotFound
from shim.wire import inspection_pb2 as pb

T = "2026-01-31T12:00:00.123456789Z"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def read(*lines: bytes, cri: bool = True) -> list[Line]:
    reader = Reader(cri=cri)
    return [line for raw in lines if (line := reader.read(raw)) is not None] + reader.rest()


def test_parts_are_joined_within_their_stream() -> None:
    later = T.replace("12:00:00", "12:00:01")
    lines = [f"{T} stdout P one ", f"{later} stderr F oops", f"{later} stdout P two ", f"{later} stdout F three"]
    assert read(*(line.encode() for line in lines)) == [
        Line(at=later, stream="stderr", text=b"oops"),
        Line(at=T, stream="stdout", text=b"one two three"),
    ]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (f"{T} stdout F", b""),
        (f"{T} stdout F ", b""),
        (f"{T} stdout F  two spaces", b" two spaces"),
        (f"{T} stdout P:x tagged", b"tagged"),  # its end never came
        ("half a li", b"half a li"),
        ("", b""),
    ],
)
def test_odd_lines(raw: str, text: bytes) -> None:
    assert [line.text for line in read(raw.encode())] == [text]


def test_a_plain_file_is_taken_as_it_is() -> None:
    assert read(f"{T} stdout P x".encode(), cri=False) == [Line(text=f"{T} stdout P x".encode())]


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    part = f"{T} stdout P ".encode() + b"x" * (1 << 18)
    assert [len(line.text) for line in read(*[part] * 6)] == [1 << 20, 1 << 19]


@given(st.lists(st.binary(max_size=80).filter(lambda raw: b"\n" not in raw)))
def test_no_bytes_break_it(lines: list[bytes]) -> None:
    assert all(b"\n" not in line.text for line in read(*lines))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90s", "2026-01-31T11:58:30+00:00"),
        ("1h30m", "2026-01-31T10:30:00+00:00"),
        ("2d", "2026-01-29T12:00:00+00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T12:00:00+02:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
    ],
)
def test_times_since(text: str, at: str) -> None:
    assert since(text, NOW).isoformat() == at


@pytest.mark.parametrize("text", ["yesterday", "5", "-5m", "5x", " 5m", "1m1h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidRequest, match="neither a duration nor a time"):
        since(text, NOW)


def test_so_long_ago_that_there_was_nothing() -> None:
    assert after(since("99999999999d", NOW))(Line(text=b"", at=T))


def test_only_what_was_written_later() -> None:
    wanted = after(NOW)
    assert wanted(Line(text=b"", at=T)) and not wanted(Line(text=b"", at="2026-01-31T11:59:59.999999999Z"))
    assert wanted(Line(text=b"no time"))


def answer(directory: Path | str, *containers: pb.LoggedContainer) -> pb.LogsResponse:
    return pb.LogsResponse(id="abc123", directory=str(directory), containers=containers)


GUEST = pb.LoggedContainer(id="g1", name="guest", unikernel=True, stdout="/run/fifo")
SIDE = pb.LoggedContainer(id="s1", name="side", stdout="/run/fifo")
ALONE = pb.LoggedContainer(id="run1", unikernel=True, stdout="/run/fifo", words="no such kernel")
KEPT = pb.LoggedContainer(id="kept", stdout="file:///var/log/a%20b")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("guest", "side"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "name"), [("", "guest"), ("side", "side"), ("s1", "side"), ("s", "side"), ("g", "guest")]
)
def test_whose_log_is_meant(wanted: str, name: str, top: Path) -> None:
    assert source(answer(top, SIDE, GUEST), wanted) == Source(directory=top / name)


def test_the_log_of_one_that_is_gone(top: Path) -> None:
    assert source(answer(top), "guest") == Source(directory=top / "guest")
    with pytest.raises(InvalidRequest, match="guest, side"):
        source(answer(top, SIDE), "")
    (top / "side").rmdir()
    assert source(answer(top), "") == Source(directory=top / "guest")


def test_outside_kubernetes() -> None:
    assert source(answer("", KEPT), "") == Source(file=Path("/var/log/a b"))
    with pytest.raises(NotFound, match=r"no such kernel.*--log-uri.*crictl logs"):
        source(answer("", ALONE), "")


@pytest.mark.parametrize("wanted", ["../side", "/etc", ".", "nobody"])
def test_a_name_leads_nowhere_else(wanted: str, top: Path) -> None:
    with pytest.raises(NotFound, match="guest, side"):
        source(answer(top, GUEST), wanted)
    with pytest.raises(NotFound, match=r"it has none|run1"):
        source(answer("", *([] if wanted == "." else [ALONE])), wanted)


def test_a_directory_that_is_gone_or_empty(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="are not there"):
        source(answer(tmp_path / "gone", GUEST), "")
    with pytest.raises(NotFound, match="written anything"):
        source(answer(tmp_path, GUEST), "")
    with pytest.raises(NotFound, match="no log yet"):
        current(Source(directory=tmp_path), previous=False)
    with pytest.raises(InvalidRequest, match="one file"):
        current(Source(file=tmp_path / "x"), previous=True)
    with pytest.raises(NodeFault, match="cannot be read"):
        list(log_files.lines(tmp_path / "x"))


def test_lives_by_number(tmp_path: Path) -> None:
    for name in ("9.log", "10.log", "2.log", "10.log.20260131-120000", "x.log"):
        (tmp_path / name).touch()
    log = Source(directory=tmp_path)
    assert current(log, previous=False).name == "10.log" and current(log, previous=True).name == "9.log"


def until_quiet(following: Iterator[bytes | Again | None]) -> list[bytes | Again]:
    return [item for item in itertools.takewhile(lambda item: item is not None, following) if item is not None]


def test_a_log_that_grows_is_rotated_and_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    log, first = Source(directory=tmp_path), tmp_path / "0.log"
    first.write_bytes(b"one\nhal")
    following = follow(log, first)
    assert until_quiet(following) == [b"one"]
    with first.open("ab", buffering=0) as file:
        file.write(b"f\n")
        assert until_quiet(following) == [b"half"]
        first.rename(tmp_path / "0.log.20260131-120000")
        file.write(b"late\n")
        assert until_quiet(following) == [b"late"]
    first.write_bytes(b"fresh\n")
    assert until_quiet(following) == [b"fresh"]
    (tmp_path / "1.log").write_bytes(b"next life\n")
    with first.open("ab", buffering=0) as file:
        file.write(b"last\n")
    assert until_quiet(following) == [b"last", Again(), b"next life"]
    for path in tmp_path.iterdir():
        path.unlink()
    os.rmdir(tmp_path)
    assert until_quiet(following) == [] and next(following, "over") == "over"


@pytest.mark.parametrize(
    ("tail", "kept"), [(None, [b"one", b"half", b"next", b"rest"]), (2, [b"half", b"next", b"rest"])]
)
def test_the_last_words_of_a_life_are_not_lost_with_it(
    tail: int | None, kept: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0.log").write_text(f"{T} stdout F one\n{T} stdout P half\n")
    (tmp_path / "1.log").write_text(f"{T} stdout F next\n{T} stderr P rest\n")
    monkeypatch.setattr(time, "sleep", lambda _: shutil.rmtree(tmp_path))
    shown: list[bytes] = []
    log = Source(directory=tmp_path)
    follow_log(log, tmp_path / "0.log", lambda line: shown.append(line.text), tail=tail)
    assert shown == kept
