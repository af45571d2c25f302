"""What processes take of the machine, as proc(5) tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUNC_SHIM = "containerd-shim-runc-v2"


@dataclass(frozen=True)
class Reading:
    """A process at one moment; `cpu` in seconds, `pss` in MiB."""

    cpu: float
    wakeups: int
    pss: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Reading:
        """Now. Raises OSError where there is no such process."""
        process = Path(f"/proc/{pid}")
        threads = list((process / "task").iterdir())
        return cls(
            # Nanoseconds on a processor (Documentation/scheduler/sched-stats.rst); stat's ticks are ten milliseconds.
            cpu=sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9,
            wakeups=sum(_number(thread / "status", "voluntary_ctxt_switches:") for thread in threads),
            pss=pss(pid),
            threads=len(threads),
            descriptors=len(list((process / "fd").iterdir())),
        )


def pss(pid: int) -> float:
    """A process's memory in MiB, what it shares with others by its part of it."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def rss(pid: int) -> float:
    """A process's memory in MiB, what it shares with others counted whole."""
    return _number(Path(f"/proc/{pid}/smaps_rollup"), "Rss:") / 1024


def running(program: str, word: str) -> Iterator[int]:
    """The processes of a program, by its file's name, that have `word` on their command line."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                argv = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if Path(argv[0]).name == program and word in argv:
                yield int(process.name)


def _number(path: Path, label: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(label))
