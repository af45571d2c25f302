"""What a container's cgroup counts, on nodes with cgroup v1, hybrid and v2.

A controller or file that is not there leaves its numbers at zero; only a cgroup that is gone is an error.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from shim.errors import NotFound

_UNLIMITED = (1 << 64) - 1
_TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # cpuacct.stat counts in clock ticks (cgroup-v1/cpuacct.rst)


class Cgroup(msgspec.Struct, frozen=True):
    """Where a process's cgroup is: one directory per v1 controller, and the v2 directory where v2 has controllers."""

    v1: dict[str, Path]
    v2: Path | None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The counters. Bytes for memory, nanoseconds for time; `flat` holds every memory.stat line by its name."""

    unified: bool
    memory_usage: int = 0
    memory_max: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    swap_usage: int = 0
    swap_limit: int = 0
    oom: int = 0
    oom_kill: int = 0
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_kernel: int = 0
    cpu_each: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    pids: int = 0
    pids_limit: int = 0
    flat: dict[str, int] = {}
    io: tuple[tuple[int, int, str, int, int], ...] = ()
    """(major, minor, operation, bytes, requests)."""


def parse_mounts(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """Mount points of cgroup hierarchies out of /proc/self/mountinfo: by v1 controller, and v2's."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        point = Path(head.split(" ")[4])
        if kind == "cgroup2" and v2 is None:
            v2 = point
        elif kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, point)
    return v1, v2


def parse_membership(text: str) -> dict[str, str]:
    """A process's cgroup path by controller out of /proc/PID/cgroup; "" is the v2 hierarchy (cgroups(7))."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def locate(membership: dict[str, str], mounts: tuple[dict[str, Path], Path | None]) -> Cgroup:
    """Put paths and mount points together."""
    v1, v2 = mounts
    directories = {
        controller: v1[controller] / path.lstrip("/")
        for controller, path in membership.items()
        if controller and controller in v1
    }
    unified = v2 / membership[""].lstrip("/") if v2 is not None and "" in membership else None
    return Cgroup(directories, unified)


def cgroup_of(pid: int) -> Cgroup:
    """The cgroup of a process. Raises NotFound when there is no such process."""
    try:
        membership = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        raise NotFound("cgroup does not exist: the process is gone", subject=str(pid)) from None
    return locate(parse_membership(membership), parse_mounts(Path("/proc/self/mountinfo").read_text()))


def pids(cgroup: Cgroup) -> list[int]:
    """Every process in the cgroup and those below it, in order."""
    top = next((cgroup.v1[name] for name in ("pids", "memory", "cpu") if name in cgroup.v1), cgroup.v2)
    if top is None:
        return []
    found: set[int] = set()
    for listing in top.rglob("cgroup.procs"):
        found.update(int(word) for word in _text(listing).split())
    return sorted(found)


def read(cgroup: Cgroup) -> Usage:
    """The counters now. Raises NotFound when the cgroup is gone."""
    if "memory" in cgroup.v1 or "cpuacct" in cgroup.v1:
        if not any(directory.is_dir() for directory in cgroup.v1.values()):
            raise NotFound("cgroup does not exist")
        return _read_v1(cgroup.v1)
    if cgroup.v2 is None or not cgroup.v2.is_dir():
        raise NotFound("cgroup does not exist")
    return _read_v2(cgroup.v2)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    if text == "max":
        return _UNLIMITED
    return int(text) if text.lstrip("-").isdigit() else 0


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _read_v1(directories: dict[str, Path]) -> Usage:
    nowhere = Path("/nonexistent")
    memory, cpu = directories.get("memory", nowhere), directories.get("cpu", nowhere)
    cpuacct, tasks = directories.get("cpuacct", nowhere), directories.get("pids", nowhere)
    ticks, throttling = _table(cpuacct / "cpuacct.stat"), _table(cpu / "cpu.stat")
    control = _table(memory / "memory.oom_control")
    return Usage(
        unified=False,
        memory_usage=_number(memory / "memory.usage_in_bytes"),
        memory_max=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit=_number(memory / "memory.limit_in_bytes"),
        memory_failures=_number(memory / "memory.failcnt"),
        swap_usage=_number(memory / "memory.memsw.usage_in_bytes"),
        swap_limit=_number(memory / "memory.memsw.limit_in_bytes"),
        oom=control.get("under_oom", 0),
        oom_kill=control.get("oom_kill", 0),
        cpu_total=_number(cpuacct / "cpuacct.usage"),
        cpu_user=ticks.get("user", 0) * _TICK,
        cpu_kernel=ticks.get("system", 0) * _TICK,
        cpu_each=tuple(int(word) for word in _text(cpuacct / "cpuacct.usage_percpu").split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_time=throttling.get("throttled_time", 0),
        pids=_number(tasks / "pids.current"),
        pids_limit=_number(tasks / "pids.max"),
        flat=_table(memory / "memory.stat"),
        io=_blkio(directories.get("blkio", nowhere)),
    )


def _blkio(directory: Path) -> tuple[tuple[int, int, str, int, int], ...]:
    def rows(name: str) -> dict[tuple[str, str], int]:
        lines = (line.split() for line in _text(directory / name).splitlines())
        return {(line[0], line[1]): int(line[2]) for line in lines if len(line) == 3}

    sizes, requests = rows("blkio.throttle.io_service_bytes"), rows("blkio.throttle.io_serviced")
    found = []
    for (device, operation), size in sizes.items():
        major, _, minor = device.partition(":")
        found.append((int(major), int(minor), operation, size, requests.get((device, operation), 0)))
    return tuple(found)


def _read_v2(directory: Path) -> Usage:
    cpu, events = _table(directory / "cpu.stat"), _table(directory / "memory.events")
    io = []
    for line in _text(directory / "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
        for operation, size, count in (("Read", "rbytes", "rios"), ("Write", "wbytes", "wios")):
            io.append((int(major), int(minor), operation, values.get(size, 0), values.get(count, 0)))
    return Usage(
        unified=True,
        memory_usage=_number(directory / "memory.current"),
        memory_max=_number(directory / "memory.peak"),
        memory_limit=_number(directory / "memory.max"),
        memory_failures=events.get("max", 0),
        swap_usage=_number(directory / "memory.swap.current"),
        swap_limit=_number(directory / "memory.swap.max"),
        oom=events.get("oom", 0),
        oom_kill=events.get("oom_kill", 0),
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_kernel=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        pids=_number(directory / "pids.current"),
        pids_limit=_number(directory / "pids.max"),
        flat=_table(directory / "memory.stat"),
        io=tuple(io),
    )
