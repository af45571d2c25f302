"""Kills for want of memory, on files made up as the kernel's; real ones are in the integration tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim import oom, stats


def write(counter: Path, kills: int) -> None:
    counter.write_text(f"low 0\nhigh 0\nmax {kills * 3}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n")


@pytest.fixture
async def watcher() -> AsyncIterator[oom.Watcher]:
    made = oom.Watcher()
    yield made
    made.close()


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    made = tmp_path / "memory.events"
    write(made, 0)
    return made


async def told(found: list[int], count: int) -> list[int]:
    async with asyncio.timeout(5):
        while len(found) < count:
            await asyncio.sleep(0.005)
    return found


async def test_each_growth_is_reported_once(watcher: oom.Watcher, counter: Path) -> None:
    found: list[int] = []
    watch = watcher.watch(counter, 0, found.append)
    assert found == []
    write(counter, 1)
    assert await told(found, 1) == [1]
    write(counter, 1)  # another of its numbers
    await asyncio.sleep(0.05)
    write(counter, 4)
    assert await told(found, 2) == [1, 4]
    watch.end()
    write(counter, 5)
    await asyncio.sleep(0.05)
    assert found == [1, 4]


async def test_the_last_look_needs_no_notice(watcher: oom.Watcher, counter: Path) -> None:
    found: list[int] = []
    watch = watcher.watch(counter, 0, found.append)
    write(counter, 2)
    watch.end()
    watch.end()
    assert found == [2]


async def test_what_was_counted_while_nobody_watched_is_reported(watcher: oom.Watcher, counter: Path) -> None:
    found: list[int] = []
    write(counter, 3)
    watcher.watch(counter, 3, found.append).end()
    assert found == []
    watcher.watch(counter, 2, found.append).end()
    assert found == [3]


async def test_one_descriptor_for_all_and_none_for_none(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    watcher = oom.Watcher()
    before = descriptors()
    found: list[int] = []
    watches = []
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "memory.events", 0)
        watches.append(watcher.watch(tmp_path / str(number) / "memory.events", 0, found.append))
    assert descriptors() == before + 1
    write(tmp_path / "7" / "memory.events", 1)
    assert await told(found, 1) == [1]
    for watch in watches:
        watch.end()
    watcher.close()
    assert descriptors() == before


async def test_two_containers_in_one_cgroup(watcher: oom.Watcher, counter: Path) -> None:
    one: list[int] = []
    other: list[int] = []
    first, second = watcher.watch(counter, 0, one.append), watcher.watch(counter, 0, other.append)
    first.end()
    write(counter, 1)
    assert await told(other, 1) == [1]
    assert one == []
    second.end()


async def test_a_cgroup_that_goes_is_no_kill(watcher: oom.Watcher, counter: Path) -> None:
    found: list[int] = []
    watch = watcher.watch(counter, 0, found.append)
    counter.unlink()
    await asyncio.sleep(0.05)
    again = watcher.watch(counter, 0, found.append)  # gone before anybody looked
    watch.end()
    again.end()
    assert found == []


async def test_where_the_kernel_tells_nobody_the_end_does(
    watcher: oom.Watcher, counter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    for name, number in (("memory.events", 28), ("memory.oom_control", 13)):

        def refuse(*arguments: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(oom.Watcher, "add", refuse)
        file = counter.with_name(name)
        write(file, 0)
        watch = watcher.watch(file, 0, found.append)  # a file made up has no cgroup.event_control
        write(file, 1)
        await asyncio.sleep(0.02)
        watch.end()
    assert found == [1, 1]


def test_where_the_kernel_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory, name in ((one, "memory.oom_control"), (two, "memory.events")):
        directory.mkdir()
        write(directory / name, 0)
    cases = (
        (stats.CgroupPaths({"memory": one}, two), one / "memory.oom_control"),  # hybrid
        (stats.CgroupPaths({}, two), two / "memory.events"),
        (stats.CgroupPaths({"cpu": one}, None), None),
        (stats.CgroupPaths({"memory": two}, None), None),
        (stats.CgroupPaths({}, tmp_path), None),  # no memory controller there
    )
    for paths, expected in cases:
        monkeypatch.setattr(stats, "cgroup_of", lambda pid, paths=paths: paths)
        assert oom.counter_of(1) == expected
    monkeypatch.undo()
    assert oom.counter_of(1 << 30) is None
