"""What was measured on: facts that a figure is worth little without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.integration import paths


class Machine(msgspec.Struct, frozen=True):
    """The machine and the programs, at the beginning of a run; `versions` by program."""

    kernel: str
    processor: str
    processors: int
    memory: int  # MiB
    versions: dict[str, str]
    commit: str
    when: str
    load: float


def machine() -> Machine:
    """This one, now."""
    return Machine(
        kernel=platform.release(),
        processor=processor(Path("/proc/cpuinfo").read_text()),
        processors=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        versions=_versions(),
        commit=_commit(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        load=os.getloadavg()[0],
    )


def processor(cpuinfo: str) -> str:
    """The first processor's name, as proc(5)'s cpuinfo has it; empty where it has none."""
    named = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(named, "")


def _versions() -> dict[str, str]:
    """Of what takes part. A program that is not there has none."""
    found = {"python": platform.python_version()}
    containerd = paths.CACHE / "containerd-2" / "usr" / "bin" / "containerd"
    programs: Mapping[str, Sequence[str]] = {
        "containerd": (os.fspath(containerd), "--version"),
        "runc": ("runc", "--version"),
        "crun": ("crun", "--version"),
        "urunc": ("urunc", "--version"),
        "solo5-spt": ("solo5-spt", "--version"),
        "qemu": ("qemu-system-x86_64", "--version"),
    }
    for name, argv in programs.items():
        if shutil.which(argv[0]):
            found[name] = _said(argv).partition("\n")[0]
    return found


def _commit() -> str:
    """The checkout's commit; `+` where it has changes, nothing where it is none."""
    commit = _said(("git", "-C", os.fspath(paths.ROOT), "rev-parse", "--short=12", "HEAD"))
    changed = _said(("git", "-C", os.fspath(paths.ROOT), "status", "--porcelain", "--untracked-files=no"))
    return commit + ("+" if commit and changed else "")


def _said(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
