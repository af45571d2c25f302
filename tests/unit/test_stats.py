"""Cgroup counters out of directory trees and /proc's texts, for each kind of node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shim import stats
from shim.errors import NotFound

_HYBRID = """\
30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 master:1 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
_MEMBER = "4:memory:/pod/c\n3:cpu,cpuacct:/pod/c\n2:pids:/pod/c\n1:name=systemd:/x\n0::/pod/c\n"


def located(membership: str, mountinfo: str) -> stats.CgroupPaths:
    return stats.locate(stats.parse_membership(membership), stats.parse_mounts(mountinfo))


def write(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def v1(paths: stats.CgroupPaths) -> stats.CgroupV1Stats:
    found = stats.read(paths)
    assert isinstance(found, stats.CgroupV1Stats)
    return found


def v2(directory: Path) -> stats.CgroupV2Stats:
    found = stats.read(stats.CgroupPaths({}, directory))
    assert isinstance(found, stats.CgroupV2Stats)
    return found


def test_a_hybrid_node_has_both_and_what_is_mounted_nowhere_is_left_out() -> None:
    paths = located(_MEMBER, _HYBRID)
    assert paths.v1["memory"] == Path("/sys/fs/cgroup/memory/pod/c")
    assert paths.v1["cpu"] == paths.v1["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct/pod/c")
    assert paths.v2 == Path("/sys/fs/cgroup/unified/pod/c")
    assert "pids" not in paths.v1


def test_a_v2_node() -> None:
    paths = located("0::/kubepods.slice/a:b.scope\n", "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
    assert paths == stats.CgroupPaths({}, Path("/sys/fs/cgroup/kubepods.slice/a:b.scope"))


@pytest.mark.parametrize(
    ("root", "path", "below"),
    [
        ("/", "/pod/c", "pod/c"),
        ("/docker/1", "/docker/1/pod/c", "pod/c"),  # a container's mount, seen with the node's cgroup namespace
        ("/../..", "/../../pod/c", "pod/c"),  # the node's mount, seen from a cgroup namespace
        ("/docker/1", "/docker/12/c", None),
        ("/", "/../c", None),
    ],
)
def test_mounts_that_show_only_part_of_a_hierarchy(root: str, path: str, below: str | None) -> None:
    paths = located(f"0::{path}\n", f"30 1 0:26 {root} /mnt/c\\040g rw - cgroup2 cgroup2 rw\n")
    assert paths.v2 == (None if below is None else Path("/mnt/c g") / below)


def test_the_first_mount_that_shows_the_cgroup_counts() -> None:
    mountinfo = "1 1 0:1 /other /a rw - cgroup2 cgroup2 rw\n2 1 0:1 / /b rw - cgroup2 cgroup2 rw\n"
    assert located("0::/c\n", mountinfo).v2 == Path("/b/c")


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "1 2 3 - cgroup\n", "0:\n"])
def test_text_that_makes_no_sense_names_no_cgroup(text: str) -> None:
    assert located(text, text) == stats.CgroupPaths({}, None)


def test_v1(tmp_path: Path) -> None:
    memory = write(
        tmp_path / "memory",
        {
            "memory.usage_in_bytes": "1000\n",
            "memory.max_usage_in_bytes": "1500\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.failcnt": "4\n",
            "memory.memsw.usage_in_bytes": "1200\n",
            "memory.stat": "cache 7\nrss 9\ntotal_pgfault 11\nbroken\nbelow_zero -1\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n",
        },
    )
    cpu = write(
        tmp_path / "cpu",
        {
            "cpuacct.usage": "500\n",
            "cpuacct.usage_percpu": "200 300 \n",
            "cpuacct.stat": "user 3\nsystem 1\n",
            "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 70\n",
        },
    )
    blkio = write(
        tmp_path / "blkio",
        {
            "blkio.throttle.io_service_bytes": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
            "blkio.throttle.io_serviced": "8:0 Read 1\n",
        },
    )
    hugetlb = write(
        tmp_path / "hugetlb",
        {
            "hugetlb.2MB.usage_in_bytes": "2097152\n",
            "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
            "hugetlb.2MB.failcnt": "1\n",
            "hugetlb.2MB.rsvd.usage_in_bytes": "0\n",
        },
    )
    found = v1(
        stats.CgroupPaths(
            {"memory": memory, "cpu": cpu, "cpuacct": cpu, "blkio": blkio, "hugetlb": hugetlb}, tmp_path / "unified"
        )
    )
    assert found.memory == stats.MemoryCounter(usage=1000, peak=1500, limit=9223372036854771712, failures=4)
    assert found.swap == stats.MemoryCounter(usage=1200, peak=0, limit=0, failures=0)
    assert found.kernel is None and found.kernel_tcp is None
    assert found.memory_stat == {"cache": 7, "rss": 9, "total_pgfault": 11}
    assert found.oom_control == {"oom_kill_disable": 0, "under_oom": 1, "oom_kill": 2}
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    assert found.cpu == stats.CpuTime(total=500, user=3 * tick, kernel=tick, each=(200, 300))
    assert found.throttling == stats.Throttling(periods=5, throttled=2, time=70)
    assert found.io_bytes == (stats.BlockCount(8, 0, "Read", 4096), stats.BlockCount(8, 0, "Write", 0))
    assert found.io_requests == (stats.BlockCount(8, 0, "Read", 1),)
    assert found.hugetlb == (stats.HugePages(size="2MB", usage=2097152, failures=1, peak=4194304),)
    assert found.pids is None, "a controller that is not there counts nothing"


def test_v2(tmp_path: Path) -> None:
    found = v2(
        write(
            tmp_path / "c",
            {
                "memory.current": "1000\n",
                "memory.max": "max\n",
                "memory.peak": "1100\n",
                "memory.swap.max": "0\n",
                "memory.stat": "anon 5\nfile 6\n",
                "memory.events": "low 0\nmax 3\noom 1\noom_kill 1\n",
                "memory.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\n\nfull avg10=0 avg60=0\n",
                "cpu.stat": (
                    "usage_usec 10\nuser_usec 4\nsystem_usec 6\n"
                    "nr_periods 3\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 1\nburst_usec 8\n"
                ),
                "pids.current": "3\n",
                "pids.max": "max\n",
                "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n\n8:16 \nzram rbytes=1\n",
                "hugetlb.1GB.current": "0\n",
                "hugetlb.1GB.max": "max\n",
                "hugetlb.1GB.events": "max 6\n",
                "hugetlb.1GB.rsvd.current": "0\n",
            },
        )
    )
    assert (found.memory_usage, found.memory_peak, found.memory_limit) == (1000, 1100, stats.UNLIMITED)
    assert (found.swap_usage, found.swap_limit) == (None, 0), "no file is not the same as none allowed"
    assert found.memory_stat == {"anon": 5, "file": 6}
    assert found.memory_events == {"low": 0, "max": 3, "oom": 1, "oom_kill": 1}
    assert found.memory_pressure == stats.Pressure(some=stats.Stall(1.5, 0.25, 0.0, 42), full=None)
    assert found.cpu_pressure is None and found.io_pressure is None
    assert found.cpu == stats.CpuTime(total=10_000, user=4_000, kernel=6_000)
    assert found.throttling == stats.Throttling(3, 2, 7_000, 1, 8_000)
    assert found.pids == stats.Pids(3, stats.UNLIMITED)
    assert found.io == (stats.DeviceIo(8, 0, 1, 2, 3, 4),)
    assert found.hugetlb == (stats.HugePages(size="1GB", usage=0, failures=6, limit=stats.UNLIMITED),)


def test_a_v2_cgroup_with_no_controllers(tmp_path: Path) -> None:
    found = v2(write(tmp_path / "c", {"cpu.stat": "usage_usec 1\nuser_usec 1\nsystem_usec 0\n"}))
    assert found.cpu == stats.CpuTime(1_000, 1_000, 0)
    assert (found.throttling, found.memory_usage, found.pids, found.io, found.hugetlb) == (None, None, None, (), ())


def test_hybrid_counters_are_v1s(tmp_path: Path) -> None:
    memory = write(tmp_path / "memory", {"memory.usage_in_bytes": "5\n"})
    unified = write(tmp_path / "unified", {"cpu.stat": "usage_usec 1\n"})
    found = v1(stats.CgroupPaths({"memory": memory}, unified))
    assert found.memory is not None and found.memory.usage == 5


def test_a_v1_hierarchy_of_names_only_leaves_the_counting_to_v2(tmp_path: Path) -> None:
    unified = write(tmp_path / "c", {"pids.current": "1\n"})
    found = stats.read(stats.CgroupPaths({"name=systemd": tmp_path}, unified))
    assert isinstance(found, stats.CgroupV2Stats)


def test_pids_of_a_cgroup_and_those_below(tmp_path: Path) -> None:
    top = write(tmp_path / "c", {"cgroup.procs": "10\n2\n"})
    write(top / "below", {"cgroup.procs": "30\n"})
    assert stats.pids(stats.CgroupPaths({}, top)) == [2, 10, 30]
    assert stats.pids(stats.CgroupPaths({"memory": top / "below"}, top)) == [30]
    assert stats.pids(stats.CgroupPaths({}, None)) == []


@pytest.mark.parametrize("hybrid", [True, False])
def test_a_cgroup_that_is_gone(tmp_path: Path, hybrid: bool) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(NotFound, match=f"{gone}: cgroup does not exist"):
        stats.read(stats.CgroupPaths({"memory": gone} if hybrid else {}, gone))


def test_a_cgroup_that_goes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write(tmp_path / "c", {"memory.current": "1\n"})

    def removed(path: Path) -> str:
        if directory.exists():
            (directory / "memory.current").unlink()
            directory.rmdir()
        return ""

    monkeypatch.setattr(stats, "_text", removed)
    with pytest.raises(NotFound):
        stats.read(stats.CgroupPaths({}, directory))


def test_no_cgroup_at_all() -> None:
    with pytest.raises(NotFound, match="cgroup does not exist"):
        stats.read(stats.CgroupPaths({}, None))


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="4194305: cgroup does not exist: the process is gone"):
        stats.cgroup_of(4194305, proc=tmp_path)


def test_cgroup_of_reads_the_process_and_our_own_mounts(tmp_path: Path) -> None:
    write(tmp_path / "7", {"cgroup": "0::/c\n"})
    write(tmp_path / "self", {"mountinfo": "1 1 0:1 / /b rw - cgroup2 cgroup2 rw\n"})
    assert stats.cgroup_of(7, proc=tmp_path) == stats.CgroupPaths({}, Path("/b/c"))


def test_this_very_process() -> None:
    try:
        found = stats.read(stats.cgroup_of(os.getpid()))
    except NotFound:
        pytest.skip("no cgroup file system is mounted here")
    assert found.cpu is None or found.cpu.total > 0


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("freezer.state", "FROZEN\n", True),
        ("freezer.state", "FREEZING\n", True),
        ("freezer.state", "THAWED\n", False),
        ("cgroup.freeze", "1\n", True),
        ("cgroup.freeze", "0\n", False),
    ],
)
def test_what_is_frozen(file: str, text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    v1 = {"freezer": tmp_path} if file == "freezer.state" else {}
    assert stats.frozen(stats.CgroupPaths(v1, None if v1 else tmp_path)) is expected
    assert not stats.frozen(stats.CgroupPaths({"freezer": tmp_path / "gone"}, None))
