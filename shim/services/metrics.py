"""A cgroup's counters as containerd's metrics messages, in the version the node has.

What the node does not count is left out of the message: containerd takes a part that is there for a measurement.
"""

from __future__ import annotations

from google.protobuf.message import Message

from shim import stats
from shim.wire import cgroups_v1_pb2 as v1
from shim.wire import cgroups_v2_pb2 as v2

# Fields of v1's MemoryStat that are not named as memory.stat names its lines; and each has a "total_" of the subtree.
_RENAMED = {"pg_pg_in": "pgpgin", "pg_pg_out": "pgpgout", "pg_fault": "pgfault", "pg_maj_fault": "pgmajfault"}
_LINES_V1 = {
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
    **_RENAMED,
    **{f"total_{field}": f"total_{line}" for field, line in _RENAMED.items()},
}
# Fields of v2's MemoryStat that have a file of their own; the others are named as memory.stat's lines.
_NO_LINES_V2 = {"usage", "usage_limit", "max_usage", "swap_usage", "swap_limit", "swap_max_usage"}


def message(usage: stats.CgroupStats) -> Message:
    """The message for Task.Stats: `io.containerd.cgroups.v1.Metrics` or `.v2.Metrics`."""
    return _v1(usage) if isinstance(usage, stats.CgroupV1Stats) else _v2(usage)


def _numbers(kind: type[Message]) -> list[str]:
    return [field.name for field in kind.DESCRIPTOR.fields if field.message_type is None]


def _v1(usage: stats.CgroupV1Stats) -> v1.Metrics:
    metrics = v1.Metrics(hugetlb=[_pages_v1(pages) for pages in usage.hugetlb])
    if usage.memory is not None or usage.memory_stat:
        lines = {name: usage.memory_stat.get(_LINES_V1.get(name, name), 0) for name in _numbers(v1.MemoryStat)}
        metrics.memory.CopyFrom(
            v1.MemoryStat(
                **lines,
                usage=_counter(usage.memory),
                swap=_counter(usage.swap),
                kernel=_counter(usage.kernel),
                kernel_tcp=_counter(usage.kernel_tcp),
            )
        )
    if usage.oom_control:
        known = {name: usage.oom_control.get(name, 0) for name in _numbers(v1.MemoryOomControl)}
        metrics.memory_oom_control.CopyFrom(v1.MemoryOomControl(**known))
    if usage.cpu is not None:
        metrics.cpu.usage.CopyFrom(
            v1.CPUUsage(total=usage.cpu.total, kernel=usage.cpu.kernel, user=usage.cpu.user, per_cpu=usage.cpu.each)
        )
    if usage.throttling is not None:
        metrics.cpu.throttling.CopyFrom(
            v1.Throttle(
                periods=usage.throttling.periods,
                throttled_periods=usage.throttling.throttled,
                throttled_time=usage.throttling.time,
            )
        )
    if usage.pids is not None:
        # In v1's message, no limit is 0 (containerd/cgroups keeps it so for its old readers).
        limit = 0 if usage.pids.limit == stats.UNLIMITED else usage.pids.limit
        metrics.pids.CopyFrom(v1.PidsStat(current=usage.pids.current, limit=limit))
    if usage.io_bytes or usage.io_requests:
        metrics.blkio.CopyFrom(
            v1.BlkIOStat(
                io_service_bytes_recursive=[_block(count) for count in usage.io_bytes],
                io_serviced_recursive=[_block(count) for count in usage.io_requests],
            )
        )
    return metrics


def _counter(counter: stats.MemoryCounter | None) -> v1.MemoryEntry | None:
    if counter is None:
        return None
    return v1.MemoryEntry(usage=counter.usage, max=counter.peak, limit=counter.limit, failcnt=counter.failures)


def _block(count: stats.BlockCount) -> v1.BlkIOEntry:
    return v1.BlkIOEntry(op=count.operation, major=count.major, minor=count.minor, value=count.value)


def _pages_v1(pages: stats.HugePages) -> v1.HugetlbStat:
    return v1.HugetlbStat(pagesize=pages.size, usage=pages.usage, max=pages.peak or 0, failcnt=pages.failures)


def _v2(usage: stats.CgroupV2Stats) -> v2.Metrics:
    metrics = v2.Metrics(hugetlb=[_pages_v2(pages) for pages in usage.hugetlb])
    if usage.memory_usage is not None or usage.memory_stat:
        lines = {name: usage.memory_stat.get(name, 0) for name in _numbers(v2.MemoryStat) if name not in _NO_LINES_V2}
        metrics.memory.CopyFrom(
            v2.MemoryStat(
                **lines,
                usage=usage.memory_usage or 0,
                usage_limit=usage.memory_limit or 0,
                max_usage=usage.memory_peak or 0,
                swap_usage=usage.swap_usage or 0,
                swap_limit=usage.swap_limit or 0,
                swap_max_usage=usage.swap_peak or 0,
                psi=_pressure(usage.memory_pressure),
            )
        )
    if usage.memory_events:
        known = {name: usage.memory_events.get(name, 0) for name in _numbers(v2.MemoryEvents)}
        metrics.memory_events.CopyFrom(v2.MemoryEvents(**known))
    if usage.cpu is not None:
        throttling = usage.throttling or stats.Throttling(0, 0, 0)
        metrics.cpu.CopyFrom(
            v2.CPUStat(
                usage_usec=usage.cpu.total // 1000,
                user_usec=usage.cpu.user // 1000,
                system_usec=usage.cpu.kernel // 1000,
                nr_periods=throttling.periods,
                nr_throttled=throttling.throttled,
                throttled_usec=throttling.time // 1000,
                nr_bursts=throttling.bursts,
                burst_usec=throttling.burst_time // 1000,
                psi=_pressure(usage.cpu_pressure),
            )
        )
    if usage.pids is not None:
        metrics.pids.CopyFrom(v2.PidsStat(current=usage.pids.current, limit=usage.pids.limit))
    if usage.io or usage.io_pressure is not None:
        metrics.io.CopyFrom(v2.IOStat(usage=[_device(device) for device in usage.io], psi=_pressure(usage.io_pressure)))
    return metrics


def _device(device: stats.DeviceIo) -> v2.IOEntry:
    return v2.IOEntry(
        major=device.major,
        minor=device.minor,
        rbytes=device.read_bytes,
        wbytes=device.written_bytes,
        rios=device.reads,
        wios=device.writes,
    )


def _pages_v2(pages: stats.HugePages) -> v2.HugeTlbStat:
    return v2.HugeTlbStat(pagesize=pages.size, current=pages.usage, max=pages.limit or 0, failcnt=pages.failures)


def _pressure(pressure: stats.Pressure | None) -> v2.PSIStats | None:
    if pressure is None:
        return None
    return v2.PSIStats(some=_stall(pressure.some), full=_stall(pressure.full))


def _stall(stall: stats.Stall | None) -> v2.PSIData | None:
    if stall is None:
        return None
    return v2.PSIData(avg10=stall.avg10, avg60=stall.avg60, avg300=stall.avg300, total=stall.total)
