"""Programs: their exits, output, descriptors, and what happens when they cannot start or do not end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from shim.errors import NodeFault, TimedOut
from shim.process import pidfd
from shim.process.reaper import UNKNOWN_STATUS, Exit, Reaper
from shim.process.spawn import run, seal_inherited, spawn

_SH = "/bin/sh"


def null() -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


async def test_output_and_status(reaper: Reaper) -> None:
    done = await run(reaper, [_SH, "-c", "echo out; echo err >&2; exit 7"], timeout=5)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


async def test_a_killed_program_counts_as_128_and_the_signal(reaper: Reaper) -> None:
    assert (await run(reaper, [_SH, "-c", "kill -9 $$"], timeout=5)).status == 137


async def test_of_much_output_the_end_is_kept(reaper: Reaper) -> None:
    done = await run(reaper, [_SH, "-c", "head -c 3000000 /dev/zero; echo end"], timeout=5)
    assert len(done.stdout) == 1 << 20 and done.stdout.endswith(b"\0end\n")


async def test_pipes_are_closed_once(reaper: Reaper, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop closes the number of a pipe that it is handed twice, and the second time it may be another's: a program of
    a pod's network was closed so before it was attached."""

    async def refuse(*_: object) -> None:
        raise AssertionError("a file object is handed to the loop")

    monkeypatch.setattr(asyncio.get_running_loop(), "connect_read_pipe", refuse)
    before = set(os.listdir("/proc/self/fd"))
    await run(reaper, [_SH, "-c", "echo out"], timeout=5)
    with pytest.raises(TimedOut):
        await run(reaper, [_SH, "-c", "sleep 60"], timeout=0.1)
    await asyncio.sleep(0)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_missing_program_is_named(reaper: Reaper) -> None:
    with pytest.raises(NodeFault, match="/no/such/program"):
        await run(reaper, ["/no/such/program"], timeout=5)


async def test_a_program_that_does_not_end_is_killed(reaper: Reaper) -> None:
    before = time.monotonic()
    with pytest.raises(TimedOut, match=r"0\.2 s"):
        await run(reaper, [_SH, "-c", "sleep 60 >/dev/null 2>&1"], timeout=0.2)
    assert time.monotonic() - before < 5


async def test_a_cancelled_run_leaves_no_program(reaper: Reaper, tmp_path: Path) -> None:
    task = asyncio.ensure_future(run(reaper, [_SH, "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], timeout=60))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        await asyncio.sleep(0.01)
    pid = int((tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        await asyncio.sleep(0.02)
    pytest.fail("the program lives on")


async def test_a_program_gets_its_descriptors_and_no_other(reaper: Reaper, tmp_path: Path) -> None:
    seal_inherited()
    first, second = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC) for name in "ab")
    os.write(first, b"1")
    # Crossed on purpose: each source has, or may have, the number that the other is to get.
    done = await run(
        reaper,
        [_SH, "-c", f"ls /proc/$$/fd; readlink /proc/$$/fd/{first} /proc/$$/fd/{second}"],
        timeout=5,
        fds={first: second, second: first},
        capture=True,
    )
    os.close(first)
    os.close(second)
    lines = done.stdout.decode().split()
    assert set(lines[:-2]) - {"10"} == {"0", "1", "2", str(first), str(second)}
    assert lines[-2:] == [str(tmp_path / "b"), str(tmp_path / "a")]


async def test_an_exit_before_anyone_watches_is_kept(reaper: Reaper) -> None:
    sink = null()
    with reaper.early_exits() as early:
        pid = spawn([_SH, "-c", "exit 5"], fds={0: sink, 1: sink, 2: sink})
        while pid not in early:
            await asyncio.sleep(0.01)
        assert (await reaper.watch(pid, early)).status == 5
    os.close(sink)


async def test_orphans_are_collected(reaper: Reaper, tmp_path: Path) -> None:
    await run(reaper, [_SH, "-c", f"(echo $$; sleep 0.05) >/dev/null & echo $! > {tmp_path}/pid"], timeout=5)
    orphan = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{orphan}").exists():
            return
        await asyncio.sleep(0.02)
    pytest.fail("a zombie stays")


async def test_adopting_a_process_and_its_true_end(reaper: Reaper) -> None:
    sink = null()
    pid = spawn([_SH, "-c", "read x; exit 9"], fds={0: sink, 1: sink, 2: sink})
    own = reaper.watch(pid)
    adopted = reaper.adopt(pid, pidfd.start_time(pid))
    ended = await asyncio.wait_for(adopted, 5)
    os.close(sink)
    assert (await own).status in (1, 9)
    assert ended.status in ((await own).status, UNKNOWN_STATUS)


async def test_a_pid_that_means_another_process_is_not_adopted(reaper: Reaper) -> None:
    ended: Exit = await reaper.adopt(os.getpid(), 1)
    assert ended.status == UNKNOWN_STATUS
    assert abs(ended.at - time.time_ns()) < 10**10


async def test_a_thread_that_takes_the_signals_takes_no_exit() -> None:
    """A library's thread that was made before the reaper has SIGCHLD unblocked, and may have all of them."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    reaper = Reaper()
    reaper.start()
    try:
        for status in range(20):
            assert (await run(reaper, [_SH, "-c", f"exit {status}"], timeout=5)).status == status
    finally:
        reaper.stop()
        done.set()
        thread.join()


async def test_signals_reach_the_program_as_from_a_shell(reaper: Reaper) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    done = await run(reaper, [_SH, "-c", "kill -PIPE $$; echo survived"], timeout=5)
    assert done.status == 128 + signal.SIGPIPE
