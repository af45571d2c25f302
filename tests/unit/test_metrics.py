"""Counters as containerd's metrics messages: each in its field, and none where the node does not count."""

from __future__ import annotations

from typing import Any

import msgspec

from shim import stats
from shim.services import metrics
from shim.wire import cgroups_v1_pb2, cgroups_v2_pb2

_EMPTY_V1 = stats.CgroupV1Stats(
    memory=None,
    swap=None,
    kernel=None,
    kernel_tcp=None,
    memory_stat={},
    oom_control={},
    cpu=None,
    throttling=None,
    pids=None,
    io_bytes=(),
    io_requests=(),
    hugetlb=(),
)
_EMPTY_V2 = stats.CgroupV2Stats(
    memory_usage=None,
    memory_peak=None,
    memory_limit=None,
    swap_usage=None,
    swap_peak=None,
    swap_limit=None,
    memory_stat={},
    memory_events={},
    cpu=None,
    throttling=None,
    pids=None,
    io=(),
    hugetlb=(),
    cpu_pressure=None,
    memory_pressure=None,
    io_pressure=None,
)


def v1(**fields: Any) -> cgroups_v1_pb2.Metrics:
    message = metrics.message(msgspec.structs.replace(_EMPTY_V1, **fields))
    assert isinstance(message, cgroups_v1_pb2.Metrics)
    return message


def v2(**fields: Any) -> cgroups_v2_pb2.Metrics:
    message = metrics.message(msgspec.structs.replace(_EMPTY_V2, **fields))
    assert isinstance(message, cgroups_v2_pb2.Metrics)
    return message


def test_what_is_not_counted_is_not_there() -> None:
    assert v1().ByteSize() == 0
    assert v2().ByteSize() == 0


def test_nothing_measured_is_there_all_the_same() -> None:
    assert v1(pids=stats.Pids(0, 0)).HasField("pids")
    assert v1(cpu=stats.CpuTime(0, 0, 0)).cpu.HasField("usage")
    assert v2(memory_usage=0).HasField("memory")


def test_each_line_of_v1s_memory_stat_reaches_its_field() -> None:
    """The lines of a 6.1 kernel, numbered; containerd's names differ from the kernel's for the paging ones."""
    own = "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault"
    own += " inactive_anon active_anon inactive_file active_file unevictable"
    lines = [*own.split(), "hierarchical_memory_limit", "hierarchical_memsw_limit"]
    lines += [f"total_{line}" for line in own.split()]
    memory = v1(memory_stat={line: number for number, line in enumerate([*lines, "shmem", "usage"], 1)}).memory
    numbers = [getattr(memory, field.name) for field in memory.DESCRIPTOR.fields if field.message_type is None]
    assert numbers == list(range(1, 33)), "the fields' numbers follow the kernel's order"
    assert not memory.HasField("usage")


def test_v1() -> None:
    message = v1(
        memory=stats.MemoryCounter(usage=1, peak=2, limit=3, failures=4),
        kernel=stats.MemoryCounter(usage=5, peak=0, limit=0, failures=0),
        oom_control={"oom_kill_disable": 1, "under_oom": 1, "oom_kill": 2, "new": 3},
        cpu=stats.CpuTime(10, 4, 6, (3, 7)),
        throttling=stats.Throttling(1, 2, 3),
        pids=stats.Pids(3, stats.UNLIMITED),
        io_bytes=(stats.BlockCount(8, 1, "Read", 4096),),
        io_requests=(stats.BlockCount(8, 1, "Write", 2),),
        hugetlb=(stats.HugePages(size="2MB", usage=1, failures=2, peak=3),),
    )
    counter = message.memory.usage
    assert (counter.usage, counter.max, counter.limit, counter.failcnt) == (1, 2, 3, 4)
    assert message.memory.kernel.usage == 5
    assert not message.memory.HasField("swap")
    control = message.memory_oom_control
    assert (control.oom_kill_disable, control.under_oom, control.oom_kill) == (1, 1, 2)
    usage = message.cpu.usage
    assert (usage.total, usage.user, usage.kernel, list(usage.per_cpu)) == (10, 4, 6, [3, 7])
    throttling = message.cpu.throttling
    assert (throttling.periods, throttling.throttled_periods, throttling.throttled_time) == (1, 2, 3)
    assert (message.pids.current, message.pids.limit) == (3, 0), "no limit is 0 in v1's message"
    entries = [*message.blkio.io_service_bytes_recursive, *message.blkio.io_serviced_recursive]
    assert [(entry.op, entry.major, entry.minor, entry.value) for entry in entries] == [
        ("Read", 8, 1, 4096),
        ("Write", 8, 1, 2),
    ]
    [pages] = message.hugetlb
    assert (pages.pagesize, pages.usage, pages.max, pages.failcnt) == ("2MB", 1, 3, 2)


def test_v2() -> None:
    stall = stats.Stall(1.5, 0.5, 0.25, 9)
    message = v2(
        memory_usage=1000,
        memory_limit=stats.UNLIMITED,
        memory_peak=1100,
        swap_usage=7,
        swap_peak=8,
        swap_limit=9,
        memory_stat={"anon": 5, "file": 6, "pgfault": 7, "workingset_refault_file": 8, "new": 9, "usage": 10},
        memory_events={"max": 3, "oom": 1, "oom_kill": 2, "oom_group_kill": 4, "new": 5},
        cpu=stats.CpuTime(10_000, 4_000, 6_000),
        throttling=stats.Throttling(1, 2, 3_000, 4, 5_000),
        pids=stats.Pids(3, stats.UNLIMITED),
        io=(stats.DeviceIo(8, 0, 1, 2, 3, 4),),
        hugetlb=(stats.HugePages(size="1GB", usage=1, failures=2, limit=3),),
        cpu_pressure=stats.Pressure(stall, None),
        memory_pressure=stats.Pressure(None, stall),
        io_pressure=stats.Pressure(stall, stall),
    )
    memory = message.memory
    assert (memory.usage, memory.max_usage, memory.usage_limit) == (1000, 1100, (1 << 64) - 1)
    assert (memory.swap_usage, memory.swap_max_usage, memory.swap_limit) == (7, 8, 9)
    assert (memory.anon, memory.file, memory.pgfault, memory.workingset_refault_file) == (5, 6, 7, 8)
    events = message.memory_events
    assert (events.low, events.max, events.oom, events.oom_kill, events.oom_group_kill) == (0, 3, 1, 2, 4)
    cpu = message.cpu
    assert (cpu.usage_usec, cpu.user_usec, cpu.system_usec) == (10, 4, 6)
    assert (cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec, cpu.nr_bursts, cpu.burst_usec) == (1, 2, 3, 4, 5)
    assert (message.pids.current, message.pids.limit) == (3, (1 << 64) - 1), "and the largest number in v2's"
    [entry] = message.io.usage
    assert (entry.major, entry.minor, entry.rbytes, entry.wbytes, entry.rios, entry.wios) == (8, 0, 1, 2, 3, 4)
    [pages] = message.hugetlb
    assert (pages.pagesize, pages.current, pages.max, pages.failcnt) == ("1GB", 1, 3, 2)
    assert (cpu.psi.some.avg10, cpu.psi.some.avg60, cpu.psi.some.avg300, cpu.psi.some.total) == (1.5, 0.5, 0.25, 9)
    assert not cpu.psi.HasField("full") and not memory.psi.HasField("some")
    assert message.io.psi.full.total == 9


def test_pressure_with_no_traffic_is_told() -> None:
    assert v2(io_pressure=stats.Pressure(stats.Stall(0, 0, 0, 1), None)).io.psi.some.total == 1
