"""Engine runs of a former daemon are known by their `--root`, waited for, and killed where they hang."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from shim.oci import orphans


def process(proc: Path, pid: int, *argv: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_bytes(b"\0".join(os.fsencode(word) for word in argv) + b"\0")


def test_they_are_known_by_their_root(tmp_path: Path) -> None:
    proc, root = tmp_path / "proc", tmp_path / "run" / "engine"
    process(proc, 10, "/usr/sbin/runc", "--root", f"{root}/runc/k8s.io", "create", "c")
    process(proc, 11, "/usr/sbin/runc", "--root", "/run/containerd/runc/k8s.io", "create", "c")
    process(proc, 12, "/usr/sbin/runc", "--root", f"{root}2/runc", "create", "c")
    process(proc, 13, "/bin/cat", f"{root}/runc/x")
    process(proc, 14)
    (proc / "self").mkdir()
    assert orphans.running(root, proc=proc) == [10]


def _engine(root: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})", "--root", f"{root}/runc"])


async def test_one_that_ends_is_waited_for_and_one_that_hangs_is_killed(tmp_path: Path) -> None:
    for seconds, grace, status in ((0.2, 20.0, 0), (60.0, 0.2, -9)):
        engine = _engine(tmp_path, seconds)
        try:
            while not orphans.running(tmp_path):
                await asyncio.sleep(0.005)
            began = time.monotonic()
            await orphans.ended(tmp_path, grace)
            assert engine.wait() == status and time.monotonic() - began < 10
        finally:
            engine.kill()
            engine.wait()


async def test_none_costs_nothing(tmp_path: Path) -> None:
    await orphans.ended(tmp_path, 60)
