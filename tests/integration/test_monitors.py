"""Monitors as they are on this machine: QEMU's probe, a Linux guest that reads its command line, Solo5's tenders."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from shim import config
from shim.errors import NodeFault
from shim.guests.base import GuestSpec
from shim.guests.linux import Linux
from shim.monitors.base import Machine, Run
from shim.monitors.qemu import Qemu
from shim.monitors.solo5 import Solo5, refuses_descriptor
from shim.oci import kernel as kernels
from shim.process.reaper import Reaper
from shim.process.spawn import run as run_program
from tests.integration import guest, paths

# Directories of test kernels as Solo5's build leaves them, colon-separated: each holds test_hello.TENDER.
_KERNELS = os.environ.get("SOLO5_TESTS", "")

_INIT = """#!/bin/busybox sh
/bin/busybox echo "environment: $A|$B"
for argument; do /bin/busybox echo "argument: $argument."; done
/bin/busybox reboot -f
"""


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """The daemon's own way to run a program."""
    reaper = Reaper()
    reaper.start()
    yield functools.partial(run_program, reaper)
    reaper.stop()


def processes_of(path: Path) -> list[str]:
    """The command lines that name `path`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(path) in words:
            found.append(process.parent.name)
    return found


async def test_the_probe_passes_where_guests_run(run: Run, tmp_path: Path) -> None:
    """Under TCG guests always run; so a probe that fails says something."""
    program = Path(paths.program("qemu-system-x86_64"))
    found = await Qemu(config.Qemu(path=os.fspath(program), accel="tcg"), run, tmp_path).acceleration(program)
    assert found.accel == "tcg"
    assert found.khz is not None
    assert 200_000 < found.khz < 10_000_000


async def test_auto_settles_in_time_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    program = Path(paths.program("qemu-system-x86_64"))
    monitor = Qemu(config.Qemu(path=os.fspath(program)), run, tmp_path)
    async with asyncio.timeout(10):
        found = await monitor.acceleration(program)
    assert found.accel == "kvm" or found.khz
    assert [path.name for path in tmp_path.iterdir()] == ["acceleration.json"]
    assert processes_of(tmp_path / f"probe-{os.getpid()}") == []


async def test_kvm_on_demand_is_an_error_where_it_does_not_run_guests(run: Run, tmp_path: Path) -> None:
    program = Path(paths.program("qemu-system-x86_64"))
    monitor = Qemu(config.Qemu(path=os.fspath(program), accel="kvm"), run, tmp_path)
    if (await Qemu(config.Qemu(path=os.fspath(program)), run, tmp_path).acceleration(program)).accel == "kvm":
        assert (await monitor.acceleration(program)).accel == "kvm"
    else:
        with pytest.raises(NodeFault, match="KVM does not run a guest here"):
            await monitor.acceleration(program)


async def test_linux_reads_its_command_line(run: Run, tmp_path: Path) -> None:
    """What init is given is what was meant; and a guest that ends, ends its monitor."""
    busybox = Path(paths.program("busybox")).read_bytes()
    executable = stat.S_IFREG | 0o755
    initrd = tmp_path / "initrd"
    initrd.write_bytes(
        guest.cpio(
            [
                *((name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev")),
                ("bin/busybox", executable, busybox),
                ("init", executable, _INIT.encode()),
            ]
        )
    )
    arguments = ("plain", "two words", "", "name=a b", "x y=z", "à", "'single'", "$A", "back\\slash")
    words = Linux().words(GuestSpec(arguments=arguments, environment={"A": "1", "B": "b  c=à"}))
    monitor = Qemu(config.Qemu(path=paths.program("qemu-system-x86_64")), run, tmp_path)
    launch = await monitor.launch(
        Machine(kernel=guest.kernel(), memory=128, words=words, initrd=initrd, clock="tsc_early_khz")
    )
    done = await run(launch.argv, timeout=30)
    console = done.stdout.decode(errors="replace").replace("\r", "")
    assert done.status == 0, console + done.stderr.decode(errors="replace")
    assert "environment: 1|b  c=à\n" in console
    assert [line for line in console.splitlines() if line.startswith("argument: ")] == [
        f"argument: {argument}." for argument in arguments
    ]


def tender(name: str) -> str:
    found = shutil.which(f"solo5-{name}")
    if found is None:
        pytest.skip(f"solo5-{name} is not on PATH: not run")
    return found


@pytest.mark.parametrize("name", ["spt", "hvt"])
async def test_a_tender_says_its_version(run: Run, name: Literal["spt", "hvt"]) -> None:
    program = tender(name)
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stderr
    assert await Solo5(name, program, run).attaches_by_name() is refuses_descriptor(said)


@pytest.mark.parametrize("name", ["spt", "hvt"])
async def test_a_tender_runs_a_kernel(run: Run, name: Literal["spt", "hvt"]) -> None:
    program = tender(name)
    kernel = next((path for each in _KERNELS.split(":") if (path := Path(each) / f"test_hello.{name}").exists()), None)
    if kernel is None:
        pytest.skip(f"SOLO5_TESTS names no directory with test_hello.{name}: not run")
    if name == "hvt" and not Path("/dev/kvm").exists():
        pytest.skip("/dev/kvm is missing: solo5-hvt not run")
    headers = kernels.read(kernel, kernel.name)
    assert headers is not None
    assert (headers.tender, headers.net_devices) == (name, ())
    launch = await Solo5(name, program, run).launch(Machine(kernel=kernel, memory=32, words=("Hello_Solo5",)))
    done = await run(launch.argv, timeout=20)
    assert done.status == 0, done.stderr.decode(errors="replace")
    assert b"Hello_Solo5" in done.stdout
    assert b"SUCCESS" in done.stdout
