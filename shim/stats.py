"""What a container's cgroup counts, on nodes with cgroup v1, hybrid and v2.

A file or controller that is not there makes its field None; only a cgroup that is gone is an error. Every read is of
kernel memory (milliseconds at worst, for memory.stat), none of a disk.

Formats: Documentation/admin-guide/cgroup-v1/*.rst and cgroup-v2.rst of the kernel, cgroups(7), proc(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import msgspec

from shim.errors import NotFound

UNLIMITED = (1 << 64) - 1
"""What a limit is when its file says "max"."""

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")  # cpuacct.stat counts in clock ticks (cgroup-v1/cpuacct.rst)
_MICROSECOND = 1000


class CgroupPaths(msgspec.Struct, frozen=True):
    """Where a process's cgroup is: one directory per v1 controller, and the v2 directory where v2 is mounted."""

    v1: dict[str, Path]
    v2: Path | None


class Mount(msgspec.Struct, frozen=True):
    """Where a cgroup hierarchy is mounted (`point`), and which of its directories is seen there (`root`)."""

    root: PurePosixPath
    point: Path


class Mounts(msgspec.Struct, frozen=True):
    """The mounts of cgroup hierarchies: of v1 by controller, and of v2."""

    v1: dict[str, tuple[Mount, ...]]
    v2: tuple[Mount, ...]


class Pids(msgspec.Struct, frozen=True):
    """How many tasks there are and may be."""

    current: int
    limit: int


class HugePages(msgspec.Struct, frozen=True):
    """Pages of one size ("2MB"), in bytes. `limit` is known of v2 and `peak` of v1."""

    size: str
    usage: int
    failures: int
    limit: int | None = None
    peak: int | None = None


class Throttling(msgspec.Struct, frozen=True):
    """How often the CPU quota was met, and how often saved-up quota went beyond it; times in nanoseconds."""

    periods: int
    throttled: int
    time: int
    bursts: int = 0
    burst_time: int = 0


class CpuTime(msgspec.Struct, frozen=True):
    """Nanoseconds of CPU; `each` per CPU, which only v1 counts."""

    total: int
    user: int
    kernel: int
    each: tuple[int, ...] = ()


class MemoryCounter(msgspec.Struct, frozen=True):
    """One of v1's four counters of memory, in bytes; `failures` is how often the limit was met."""

    usage: int
    peak: int
    limit: int
    failures: int


class BlockCount(msgspec.Struct, frozen=True):
    """What was counted of one operation ("Read") on one block device."""

    major: int
    minor: int
    operation: str
    value: int


class DeviceIo(msgspec.Struct, frozen=True):
    """One block device's traffic as v2 counts it."""

    major: int
    minor: int
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


class Stall(msgspec.Struct, frozen=True):
    """One line of a pressure file: per cent of the last 10, 60 and 300 seconds, and microseconds since ever."""

    avg10: float
    avg60: float
    avg300: float
    total: int


class Pressure(msgspec.Struct, frozen=True):
    """For how long some and all tasks waited for a resource (Documentation/accounting/psi.rst)."""

    some: Stall | None
    full: Stall | None


class CgroupV1Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a v1 cgroup; the names in `memory_stat` and `oom_control` are the kernel's."""

    memory: MemoryCounter | None
    swap: MemoryCounter | None
    kernel: MemoryCounter | None
    kernel_tcp: MemoryCounter | None
    memory_stat: dict[str, int]
    oom_control: dict[str, int]
    cpu: CpuTime | None
    throttling: Throttling | None
    pids: Pids | None
    io_bytes: tuple[BlockCount, ...]
    io_requests: tuple[BlockCount, ...]
    hugetlb: tuple[HugePages, ...]


class CgroupV2Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a v2 cgroup; the names in `memory_stat` and `memory_events` are the kernel's."""

    memory_usage: int | None
    memory_peak: int | None
    memory_limit: int | None
    swap_usage: int | None
    swap_peak: int | None
    swap_limit: int | None
    memory_stat: dict[str, int]
    memory_events: dict[str, int]
    cpu: CpuTime | None
    throttling: Throttling | None
    pids: Pids | None
    io: tuple[DeviceIo, ...]
    hugetlb: tuple[HugePages, ...]
    cpu_pressure: Pressure | None
    memory_pressure: Pressure | None
    io_pressure: Pressure | None


CgroupStats: TypeAlias = CgroupV1Stats | CgroupV2Stats


def parse_mounts(mountinfo: str) -> Mounts:
    """The cgroup hierarchies in the text of /proc/PID/mountinfo, in its order."""
    v1: dict[str, tuple[Mount, ...]] = {}
    v2: tuple[Mount, ...] = ()
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        place, kind = head.split(" "), tail.split(" ")
        if len(place) < 5 or len(kind) < 3:
            continue
        mount = Mount(PurePosixPath(_unescape(place[3])), Path(_unescape(place[4])))
        if kind[0] == "cgroup2":
            v2 = (*v2, mount)
        elif kind[0] == "cgroup":
            # The super block's options: the controllers among flags, which no process is a member of.
            for option in kind[2].split(","):
                v1[option] = (*v1.get(option, ()), mount)
    return Mounts(v1, v2)


def parse_membership(text: str) -> dict[str, str]:
    """A process's cgroup path by controller out of /proc/PID/cgroup; "" is the v2 hierarchy (cgroups(7))."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            found.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return found


def locate(membership: dict[str, str], mounts: Mounts) -> CgroupPaths:
    """Put paths and mounts together. A hierarchy that is mounted nowhere, or not that far up, is left out."""
    v1 = {}
    for controller, path in membership.items():
        directory = _below(path, mounts.v1.get(controller, ()))
        if controller and directory is not None:
            v1[controller] = directory
    return CgroupPaths(v1, _below(membership[""], mounts.v2) if "" in membership else None)


def cgroup_of(pid: int, *, proc: Path = Path("/proc")) -> CgroupPaths:
    """The cgroup of a process. Raises NotFound when there is no such process."""
    try:
        membership = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        raise NotFound("cgroup does not exist: the process is gone", subject=str(pid)) from None
    return locate(parse_membership(membership), parse_mounts((proc / "self" / "mountinfo").read_text()))


def cgroup_at(path: str, *, proc: Path = Path("/proc")) -> CgroupPaths:
    """The cgroup of that path in each hierarchy, whether it is there or not."""
    mounts = parse_mounts((proc / "self" / "mountinfo").read_text())
    return locate(dict.fromkeys([*mounts.v1, ""], path), mounts)


def pids(paths: CgroupPaths) -> list[int]:
    """Every process in the cgroup and those below it, in order; none where the cgroup is gone."""
    top = next((paths.v1[name] for name in ("pids", "memory", "cpu") if name in paths.v1), paths.v2)
    if top is None:
        return []
    found: set[int] = set()
    for listing in top.rglob("cgroup.procs"):
        found.update(int(word) for word in _text(listing).split())
    return sorted(found)


def frozen(paths: CgroupPaths) -> bool:
    """Whether the cgroup's processes are frozen, or are being (cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst)."""
    if "freezer" in paths.v1:
        return _text(paths.v1["freezer"] / "freezer.state").strip() in ("FROZEN", "FREEZING")
    return paths.v2 is not None and _text(paths.v2 / "cgroup.freeze").strip() == "1"


def is_frozen(pid: int) -> bool:
    """Whether the process's cgroup is frozen; False once there is no such process."""
    try:
        return frozen(cgroup_of(pid))
    except NotFound:
        return False


def read(paths: CgroupPaths) -> CgroupStats:
    """The counters now. Raises NotFound when the cgroup is gone, or goes while it is read."""
    # A hybrid node has its controllers in v1 and nothing but names in v2.
    in_v1 = [paths.v1[name] for name in ("memory", "cpuacct", "cpu", "pids") if name in paths.v1]
    directories = in_v1 or ([paths.v2] if paths.v2 is not None else [])
    stats = _read_v1(paths.v1) if in_v1 else _read_v2(paths.v2) if paths.v2 is not None else None
    # Afterwards: files that vanish underneath read as absent ones, and half of the counters would be a lie.
    if stats is None or not any(directory.is_dir() for directory in directories):
        raise NotFound("cgroup does not exist", subject=str(directories[0]) if directories else "")
    return stats


def _unescape(field: str) -> str:
    # Space, tab, newline and backslash are written as three octal digits (proc_pid_mountinfo(5)).
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _below(path: str, mounts: tuple[Mount, ...]) -> Path | None:
    """The directory of the cgroup `path` under the first mount that shows it (in a container, it may not)."""
    for mount in mounts:
        if PurePosixPath(path).is_relative_to(mount.root):
            below = PurePosixPath(path).relative_to(mount.root)
            # "/../x" is a sibling of the cgroup namespace's root (cgroup_namespaces(7)): no mount of ours shows it.
            if ".." not in below.parts:
                return mount.point / below
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    if text == "max":
        return UNLIMITED
    return int(text) if text.isdecimal() else None


def table(path: Path) -> dict[str, int]:
    """A file of names and numbers, one pair a line; {} where it is gone."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _pids(directory: Path) -> Pids | None:
    current = _number(directory / "pids.current")
    limit = _number(directory / "pids.max")
    return None if current is None else Pids(current, UNLIMITED if limit is None else limit)


def _read_v1(directories: dict[str, Path]) -> CgroupV1Stats:
    nowhere = Path("/nonexistent")
    memory, cpu = directories.get("memory", nowhere), directories.get("cpu", nowhere)
    blkio = directories.get("blkio", nowhere)
    return CgroupV1Stats(
        memory=_memory_counter(memory, "memory"),
        swap=_memory_counter(memory, "memory.memsw"),
        kernel=_memory_counter(memory, "memory.kmem"),
        kernel_tcp=_memory_counter(memory, "memory.kmem.tcp"),
        memory_stat=table(memory / "memory.stat"),
        oom_control=table(memory / "memory.oom_control"),
        cpu=_cpuacct(directories.get("cpuacct", nowhere)),
        throttling=_throttling(table(cpu / "cpu.stat"), "throttled_time", "burst_time", 1),
        pids=_pids(directories.get("pids", nowhere)),
        # The throttling policy counts whatever the disk's scheduler is; the others' files come and go with it.
        io_bytes=_block_counts(blkio / "blkio.throttle.io_service_bytes"),
        io_requests=_block_counts(blkio / "blkio.throttle.io_serviced"),
        hugetlb=_hugetlb_v1(directories.get("hugetlb", nowhere)),
    )


def _memory_counter(directory: Path, prefix: str) -> MemoryCounter | None:
    usage = _number(directory / f"{prefix}.usage_in_bytes")
    if usage is None:
        return None
    return MemoryCounter(
        usage=usage,
        peak=_number(directory / f"{prefix}.max_usage_in_bytes") or 0,
        limit=_number(directory / f"{prefix}.limit_in_bytes") or 0,
        failures=_number(directory / f"{prefix}.failcnt") or 0,
    )


def _cpuacct(directory: Path) -> CpuTime | None:
    total = _number(directory / "cpuacct.usage")
    if total is None:
        return None
    ticks = table(directory / "cpuacct.stat")
    each = (int(word) for word in _text(directory / "cpuacct.usage_percpu").split())
    return CpuTime(total, ticks.get("user", 0) * _TICK, ticks.get("system", 0) * _TICK, tuple(each))


def _throttling(table: dict[str, int], throttled: str, burst: str, unit: int) -> Throttling | None:
    if "nr_periods" not in table:
        return None
    return Throttling(
        periods=table["nr_periods"],
        throttled=table.get("nr_throttled", 0),
        time=table.get(throttled, 0) * unit,
        bursts=table.get("nr_bursts", 0),
        burst_time=table.get(burst, 0) * unit,
    )


def _device(word: str) -> tuple[int, int] | None:
    major, _, minor = word.partition(":")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _block_counts(path: Path) -> tuple[BlockCount, ...]:
    found = []
    for line in _text(path).splitlines():
        words = line.split()
        # The last line, "Total 4096", is of no device.
        if len(words) == 3 and (device := _device(words[0])) and words[2].isdecimal():
            found.append(BlockCount(*device, words[1], int(words[2])))
    return tuple(found)


def _page_sizes(directory: Path, suffix: str) -> list[str]:
    # hugetlb.2MB.current; hugetlb.2MB.rsvd.current counts reservations, not pages.
    found = (path.name.removeprefix("hugetlb.").removesuffix(suffix) for path in directory.glob(f"hugetlb.*{suffix}"))
    return sorted(size for size in found if "." not in size)


def _hugetlb_v1(directory: Path) -> tuple[HugePages, ...]:
    return tuple(
        HugePages(
            size=size,
            usage=_number(directory / f"hugetlb.{size}.usage_in_bytes") or 0,
            failures=_number(directory / f"hugetlb.{size}.failcnt") or 0,
            peak=_number(directory / f"hugetlb.{size}.max_usage_in_bytes"),
        )
        for size in _page_sizes(directory, ".usage_in_bytes")
    )


def _read_v2(directory: Path) -> CgroupV2Stats:
    cpu = table(directory / "cpu.stat")
    return CgroupV2Stats(
        memory_usage=_number(directory / "memory.current"),
        memory_peak=_number(directory / "memory.peak"),
        memory_limit=_number(directory / "memory.max"),
        swap_usage=_number(directory / "memory.swap.current"),
        swap_peak=_number(directory / "memory.swap.peak"),
        swap_limit=_number(directory / "memory.swap.max"),
        memory_stat=table(directory / "memory.stat"),
        memory_events=table(directory / "memory.events"),
        cpu=_cpu_v2(cpu),
        throttling=_throttling(cpu, "throttled_usec", "burst_usec", _MICROSECOND),
        pids=_pids(directory),
        io=_io_stat(directory / "io.stat"),
        hugetlb=_hugetlb_v2(directory),
        cpu_pressure=_pressure(directory / "cpu.pressure"),
        memory_pressure=_pressure(directory / "memory.pressure"),
        io_pressure=_pressure(directory / "io.pressure"),
    )


def _cpu_v2(table: dict[str, int]) -> CpuTime | None:
    if "usage_usec" not in table:
        return None
    total, user, kernel = (table.get(name, 0) * _MICROSECOND for name in ("usage_usec", "user_usec", "system_usec"))
    return CpuTime(total, user, kernel)


def _io_stat(path: Path) -> tuple[DeviceIo, ...]:
    found = []
    for line in _text(path).splitlines():
        first, *pairs = line.split() or [""]
        # A device that has seen nothing yet may be listed with no pairs at all.
        values = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs) if value.isdecimal()}
        if values and (device := _device(first)):
            found.append(DeviceIo(*device, *(values.get(name, 0) for name in ("rbytes", "wbytes", "rios", "wios"))))
    return tuple(found)


def _hugetlb_v2(directory: Path) -> tuple[HugePages, ...]:
    return tuple(
        HugePages(
            size=size,
            usage=_number(directory / f"hugetlb.{size}.current") or 0,
            failures=table(directory / f"hugetlb.{size}.events").get("max", 0),
            limit=_number(directory / f"hugetlb.{size}.max"),
        )
        for size in _page_sizes(directory, ".current")
    )


def _pressure(path: Path) -> Pressure | None:
    lines = {}
    for line in _text(path).splitlines():
        kind, *pairs = line.split() or [""]
        lines[kind] = _stall(dict(pair.split("=", 1) for pair in pairs if "=" in pair))
    return Pressure(lines.get("some"), lines.get("full")) if lines else None


def _stall(values: dict[str, str]) -> Stall | None:
    try:
        return msgspec.convert(values, Stall, strict=False)
    except msgspec.ValidationError:
        return None  # a field that this kernel does not tell, or tells otherwise
