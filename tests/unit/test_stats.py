"""Cgroup counters out of directory trees, and the messages made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shim import stats
from shim.errors import NotFound
from shim.services import metrics
from shim.wire import cgroups_v1_pb2, cgroups_v2_pb2

_MOUNTS = """\
30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""
_MEMBER = "4:memory:/pod/c\n3:cpu,cpuacct:/pod/c\n1:name=systemd:/x\n0::/pod/c\n"


def test_where_a_processs_cgroup_is() -> None:
    cgroup = stats.locate(stats.parse_membership(_MEMBER), stats.parse_mounts(_MOUNTS))
    assert cgroup.v1["memory"] == Path("/sys/fs/cgroup/memory/pod/c")
    assert cgroup.v1["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct/pod/c")
    assert cgroup.v2 == Path("/sys/fs/cgroup/unified/pod/c")


def write(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def test_v1(tmp_path: Path) -> None:
    memory = write(
        tmp_path / "memory",
        {
            "memory.usage_in_bytes": "1000\n",
            "memory.limit_in_bytes": "2000\n",
            "memory.stat": "cache 7\nrss 9\ntotal_rss 11\nnew_kernels_line 1\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
    )
    cpuacct = write(tmp_path / "cpuacct", {"cpuacct.usage": "500\n", "cpuacct.usage_percpu": "200 300\n"})
    blkio = write(
        tmp_path / "blkio",
        {
            "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
            "blkio.throttle.io_serviced": "8:0 Read 1\n8:0 Write 0\n",
        },
    )
    usage = stats.read(stats.Cgroup({"memory": memory, "cpuacct": cpuacct, "blkio": blkio}, None))
    message = metrics.message(usage)
    assert isinstance(message, cgroups_v1_pb2.Metrics)
    assert (message.memory.usage.usage, message.memory.usage.limit) == (1000, 2000)
    assert (message.memory.cache, message.memory.rss, message.memory.total_rss) == (7, 9, 11)
    assert message.memory_oom_control.oom_kill == 2
    assert (message.cpu.usage.total, list(message.cpu.usage.per_cpu)) == (500, [200, 300])
    assert [(entry.op, entry.value) for entry in message.blkio.io_service_bytes_recursive] == [
        ("Read", 4096),
        ("Write", 0),
    ]
    assert message.pids.current == 0, "a controller that is not there counts nothing"


def test_v2(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "c",
        {
            "memory.current": "1000\n",
            "memory.max": "max\n",
            "memory.stat": "anon 5\nfile 6\nslab 7\n",
            "memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n",
            "cpu.stat": "usage_usec 10\nuser_usec 4\nsystem_usec 6\nnr_throttled 2\n",
            "pids.current": "3\n",
            "pids.max": "max\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        },
    )
    message = metrics.message(stats.read(stats.Cgroup({}, directory)))
    assert isinstance(message, cgroups_v2_pb2.Metrics)
    assert (message.memory.usage, message.memory.anon, message.memory.file) == (1000, 5, 6)
    assert message.memory.usage_limit == (1 << 64) - 1
    assert (message.cpu.usage_usec, message.cpu.nr_throttled) == (10, 2)
    assert (message.pids.current, message.pids.limit) == (3, 0)
    assert message.memory_events.oom_kill == 1
    assert [(e.rbytes, e.wbytes, e.rios, e.wios) for e in message.io.usage] == [(1, 2, 3, 4)]


def test_pids_of_a_cgroup_and_those_below(tmp_path: Path) -> None:
    top = write(tmp_path / "c", {"cgroup.procs": "10\n2\n"})
    write(top / "below", {"cgroup.procs": "30\n"})
    assert stats.pids(stats.Cgroup({}, top)) == [2, 10, 30]


def test_a_cgroup_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        stats.read(stats.Cgroup({"memory": tmp_path / "gone"}, None))
    with pytest.raises(NotFound):
        stats.read(stats.Cgroup({}, tmp_path / "gone"))
    with pytest.raises(NotFound):
        stats.cgroup_of(2**22 + 1)


def test_this_very_process() -> None:
    import os

    usage = stats.read(stats.cgroup_of(os.getpid()))
    assert usage.memory_usage >= 0
