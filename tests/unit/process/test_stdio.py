"""Streams in every form containerd asks for, and every way to ask wrongly."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

import pytest

from shim.errors import InvalidRequest, NodeFault, TimedOut
from shim.process.reaper import Reaper
from shim.process.relay import Overheard
from shim.process.spawn import run
from shim.process.stdio import Opener, Streams
from shim.process.terminal import ConsoleSocket, Terminal

_SH = "/bin/sh"


async def speak(opener: Opener, reaper: Reaper, streams: Streams, script: str) -> None:
    opened = await opener.all(streams, "c1", "ns")
    try:
        assert (await run(reaper, [_SH, "-c", script], timeout=5, fds=opened.child, capture=False)).status == 0
    finally:
        opened.close()


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


async def test_fifos_reach_the_process_itself(opener: Opener, reaper: Reaper, tmp_path: Path) -> None:
    streams = Streams(
        stdin=fifo(tmp_path / "in"), stdout=fifo(tmp_path / "out"), stderr=f"fifo://{fifo(tmp_path / 'err')}"
    )
    out = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    err = os.open(tmp_path / "err", os.O_RDONLY | os.O_NONBLOCK)
    opened = await opener.all(streams, "c1", "ns")
    assert all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in opened.child.values())
    assert all(os.get_blocking(fd) for fd in opened.child.values())
    work = asyncio.ensure_future(
        run(reaper, [_SH, "-c", "cat; echo oops >&2"], timeout=5, fds=opened.child, capture=False)
    )
    writer = os.open(tmp_path / "in", os.O_WRONLY)
    os.write(writer, b"hello")
    os.close(writer)
    await asyncio.sleep(0.1)
    assert not work.done(), "the guard keeps stdin open until CloseIO"
    opened.close_child()
    opened.close_stdin()
    assert (await work).status == 0
    assert os.read(out, 100) == b"hello"
    assert os.read(err, 100) == b"oops\n"
    os.close(out)
    os.close(err)
    opened.close()


async def test_files_are_appended_to(opener: Opener, reaper: Reaper, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "log file"
    uri = f"file://{str(target).replace(' ', '%20')}"
    for _ in range(2):
        await speak(opener, reaper, Streams(stdout=uri, stderr=uri), "echo out; echo err >&2")
    assert target.read_text() == "out\nerr\nout\nerr\n"


async def test_a_log_binary_is_started_and_fed(opener: Opener, reaper: Reaper, tmp_path: Path) -> None:
    logger = tmp_path / "logger"
    logger.write_text(
        f'#!/bin/sh\nenv | grep ^CONTAINER_ > {tmp_path}/env; echo "$@" > {tmp_path}/args\n'
        f"exec 5>&-; cat <&3 > {tmp_path}/out; cat <&4 > {tmp_path}/err; touch {tmp_path}/done\n"
    )
    logger.chmod(0o755)
    await speak(opener, reaper, Streams(stdout=f"binary://{logger}?key=value"), "echo out; echo err >&2")
    for _ in range(200):
        if (tmp_path / "done").exists():
            break
        await asyncio.sleep(0.02)
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "err").read_text() == "err\n"
    assert (tmp_path / "args").read_text() == "key value\n"
    assert set((tmp_path / "env").read_text().split()) >= {"CONTAINER_ID=c1", "CONTAINER_NAMESPACE=ns"}


async def test_a_log_binary_that_is_missing_or_dies(opener: Opener, tmp_path: Path) -> None:
    with pytest.raises(NodeFault, match="no-such"):
        await opener.all(Streams(stdout="binary:///no-such"), "c1", "ns")
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nexit 3\n")
    dying.chmod(0o755)
    with pytest.raises((NodeFault, TimedOut), match="status 3"):
        await opener.all(Streams(stdout=f"binary://{dying}"), "c1", "ns")


@pytest.mark.parametrize(
    ("streams", "word"),
    [
        (Streams(stdout="relative"), "absolute"),
        (Streams(stdout="ftp:///x"), "unknown scheme"),
        (Streams(stdout="/no/such/fifo"), "no such stdout"),
        (Streams(stdin="/no/such/fifo"), "no such stdin"),
        (Streams(stdin="file:///etc/passwd"), "must be a FIFO"),
        (Streams(stdin="/etc/passwd"), "not a FIFO"),
        (Streams(stdout="fd://999"), "no such descriptor"),
        (Streams(stdout="fd://x"), "no such descriptor"),
    ],
)
async def test_nonsense_is_refused_and_nothing_stays_open(opener: Opener, streams: Streams, word: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidRequest, match=word):
        await opener.all(streams, "c1", "ns")
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_last_words_are_relayed_and_remembered(tmp_path: Path) -> None:
    reading, sink = os.pipe()
    overheard = Overheard(tmp_path / "stderr", sink)
    child = overheard.for_child()
    os.write(child, b"monitor: cannot\n  load it\n")
    os.close(child)
    assert overheard.words() == "monitor: cannot / load it"
    overheard.close()
    overheard.close()
    assert os.read(reading, 100) == b"monitor: cannot\n  load it\n"
    os.close(reading)
    assert not (tmp_path / "stderr").exists()


async def test_the_end_does_not_wait_for_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, sink = os.pipe()
    overheard = Overheard(tmp_path / "stderr", sink)

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refused)
    overheard.close()
    os.close(reading)


async def test_a_terminal_is_relayed_both_ways_and_resized(tmp_path: Path) -> None:
    master, slave = os.openpty()
    in_r, in_w = os.pipe()
    out_r, out_w = os.pipe()
    terminal = Terminal(master, in_r, None, out_w)
    terminal.resize(100, 40)
    assert os.get_terminal_size(slave) == os.terminal_size((100, 40))
    os.write(in_w, b"ls\n")
    await asyncio.sleep(0.05)
    assert os.read(slave, 10) == b"ls\n"
    os.write(slave, b"x" * 5000)
    os.close(slave)
    await terminal.drain(5)
    assert os.read(out_r, 10000).endswith(b"x" * 5000)
    terminal.close()
    for descriptor in (in_w, out_r):
        os.close(descriptor)


async def test_an_engine_that_delivers_no_terminal(tmp_path: Path) -> None:
    socket = ConsoleSocket(tmp_path / "s")
    with pytest.raises(TimedOut, match="no terminal"):
        await socket.receive(timeout=0.05)
    socket.close()
    assert not (tmp_path / "s").exists()
