"""A cgroup's counters as containerd's metrics messages, in the version the node has."""

from __future__ import annotations

from google.protobuf.message import Message

from shim.stats import Usage
from shim.wire import cgroups_v1_pb2 as v1
from shim.wire import cgroups_v2_pb2 as v2

_UNLIMITED = (1 << 64) - 1


def message(usage: Usage) -> Message:
    """The message for Task.Stats."""
    return _v2(usage) if usage.unified else _v1(usage)


def _known(kind: type[Message], flat: dict[str, int]) -> dict[str, int]:
    """The lines of memory.stat that the message has a field for."""
    fields = {field.name for field in kind.DESCRIPTOR.fields if field.message_type is None}
    return {name: value for name, value in flat.items() if name in fields}


def _v1(usage: Usage) -> v1.Metrics:
    memory = v1.MemoryStat(
        usage=v1.MemoryEntry(
            usage=usage.memory_usage,
            max=usage.memory_max,
            limit=usage.memory_limit,
            failcnt=usage.memory_failures,
        ),
        swap=v1.MemoryEntry(usage=usage.swap_usage, limit=usage.swap_limit),
    )
    for name, value in _known(v1.MemoryStat, usage.flat).items():
        setattr(memory, name, value)
    return v1.Metrics(
        pids=v1.PidsStat(current=usage.pids, limit=0 if usage.pids_limit == _UNLIMITED else usage.pids_limit),
        cpu=v1.CPUStat(
            usage=v1.CPUUsage(
                total=usage.cpu_total, kernel=usage.cpu_kernel, user=usage.cpu_user, per_cpu=usage.cpu_each
            ),
            throttling=v1.Throttle(
                periods=usage.periods, throttled_periods=usage.throttled_periods, throttled_time=usage.throttled_time
            ),
        ),
        memory=memory,
        blkio=v1.BlkIOStat(
            io_service_bytes_recursive=[
                v1.BlkIOEntry(op=operation, major=major, minor=minor, value=size)
                for major, minor, operation, size, _ in usage.io
            ],
            io_serviced_recursive=[
                v1.BlkIOEntry(op=operation, major=major, minor=minor, value=count)
                for major, minor, operation, _, count in usage.io
            ],
        ),
        memory_oom_control=v1.MemoryOomControl(under_oom=usage.oom, oom_kill=usage.oom_kill),
    )


def _v2(usage: Usage) -> v2.Metrics:
    memory = v2.MemoryStat(
        usage=usage.memory_usage,
        usage_limit=usage.memory_limit,
        max_usage=usage.memory_max,
        swap_usage=usage.swap_usage,
        swap_limit=usage.swap_limit,
    )
    for name, value in _known(v2.MemoryStat, usage.flat).items():
        setattr(memory, name, value)
    devices: dict[tuple[int, int], v2.IOEntry] = {}
    for major, minor, operation, size, count in usage.io:
        entry = devices.setdefault((major, minor), v2.IOEntry(major=major, minor=minor))
        if operation == "Read":
            entry.rbytes, entry.rios = size, count
        else:
            entry.wbytes, entry.wios = size, count
    return v2.Metrics(
        pids=v2.PidsStat(current=usage.pids, limit=0 if usage.pids_limit == _UNLIMITED else usage.pids_limit),
        cpu=v2.CPUStat(
            usage_usec=usage.cpu_total // 1000,
            user_usec=usage.cpu_user // 1000,
            system_usec=usage.cpu_kernel // 1000,
            nr_periods=usage.periods,
            nr_throttled=usage.throttled_periods,
            throttled_usec=usage.throttled_time // 1000,
        ),
        memory=memory,
        memory_events=v2.MemoryEvents(max=usage.memory_failures, oom=usage.oom, oom_kill=usage.oom_kill),
        io=v2.IOStat(usage=list(devices.values())),
    )
