"""Monitors as they are on this machine: QEMU's probe, a Linux guest that reads its command line, Solo5's tenders."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from shim import config
from shim.errors import NodeFault
from shim.guests.base import GuestSpec
from shim.guests.linux import Linux
from shim.monitors import probe_arm, probe_x86
from shim.monitors.acceleration import Acceleration
from shim.monitors.base import Disk, Machine, Run, SharedDirectory
from shim.monitors.machines import choose
from shim.monitors.qemu import Qemu
from shim.monitors.qemu_arguments import arguments
from shim.monitors.solo5 import Solo5, refuses_descriptor
from shim.oci import kernel as kernels
from tests.integration import acceleration, guest, paths

# Directories of test kernels as Solo5's build leaves them, colon-separated: each holds test_hello.TENDER.
_KERNELS = os.environ.get("SOLO5_TESTS", "")

_NOBODY = 65534

_INIT = """#!/bin/busybox sh
/bin/busybox echo "environment: $A|$B"
for argument; do /bin/busybox echo "argument: $argument."; done
/bin/busybox reboot -f
"""


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
    acceleration.lend(tmp_path)
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
    acceleration.lend(tmp_path)
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


_DISKS = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules/order); do $b insmod /modules/$m.ko; done
for disk in vda vdb; do
    echo "$disk: $($b cat /sys/block/$disk/serial) $($b cat /sys/block/$disk/ro) $($b sha256sum </dev/$disk)"
done
echo written >/dev/vda || echo "vda: refused"
echo written >/dev/vdb
$b sync
echo "processors: $($b nproc)"
$b poweroff -f
"""


async def test_a_pc_with_disks(run: Run, tmp_path: Path) -> None:
    """A q35 finds its disks in their order, reads what they hold, and writes to one of them only."""
    initrd, first, second = tmp_path / "initrd", tmp_path / "first, read-only", tmp_path / "second"
    initrd.write_bytes(guest.initrd(more_modules=guest.MODULES_MORE, files={"/init": _DISKS.encode()}))
    first.write_bytes(os.urandom(1 << 20))
    second.write_bytes(os.urandom(1 << 20))
    held = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    acceleration.lend(tmp_path)
    machine = Machine(
        kernel=guest.kernel(),
        memory=128,
        words=("console=ttyS0", "quiet", "panic=-1", "reboot=t"),
        initrd=initrd,
        disks=(Disk(path=first), Disk(path=second, read_only=False)),
        kind="q35",
        cpus=2,
        clock="tsc_early_khz",
    )
    launch = await Qemu(config.Qemu(), run, tmp_path).launch(machine)
    done = await run(launch.argv, timeout=40)
    console = done.stdout.decode(errors="replace").replace("\r", "")
    assert done.status == 0, console + done.stderr.decode(errors="replace")
    assert f"vda: disk0 1 {held[0]}" in console and f"vdb: disk1 0 {held[1]}" in console, console
    assert "vda: refused\n" in console and "processors: 2\n" in console, console
    assert hashlib.sha256(first.read_bytes()).hexdigest() == held[0]
    assert second.read_bytes().startswith(b"written\n")


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that anybody may look into."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("kind", ["microvm", "q35", "virt"])
def test_every_machine_is_made_with_all_its_devices(kind: str, public: Path) -> None:
    """By a QEMU without any right, which says over its control socket what it has. None of them is started."""
    architecture = "aarch64" if kind == "virt" else "x86_64"
    program = Path(paths.program(f"qemu-system-{architecture}"))
    shared, disk, kernel = public / "shared", public / "disk", public / "kernel"
    shared.mkdir()
    disk.write_bytes(bytes(1 << 20))
    kernel.write_bytes(probe_arm.kernel() if kind == "virt" else probe_x86.kernel())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(public / "control"))
        listening.listen(1)
        machine = Machine(
            kernel=kernel,
            memory=64,
            disks=(Disk(path=disk), Disk(path=disk)),
            directories=(SharedDirectory(path=shared, tag="config"),),
            kind=kind,
            cpus=2,
            control=listening.fileno(),
        )
        argv = arguments(program, machine, choose(kind, architecture), Acceleration(accel="tcg"))
        process = subprocess.Popen(
            [*argv, "-S"],
            pass_fds=[listening.fileno()],
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with socket.socket(socket.AF_UNIX) as control, process:
            control.settimeout(10)
            control.connect(os.fspath(public / "control"))
            with control.makefile("rw") as lines:
                lines.readline()
                found = []
                for command in ("qmp_capabilities", "query-block", "query-cpus-fast"):
                    lines.write(json.dumps({"execute": command}) + "\n")
                    lines.flush()
                    found.append(json.loads(lines.readline())["return"])
                lines.write(json.dumps({"execute": "quit"}) + "\n")
            said = process.communicate(timeout=10)[0]
        assert process.returncode == 0, said
        assert [block["inserted"]["ro"] for block in found[1]] == [True, True]
        assert len(found[2]) == 2


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


def solo5_kernel(test: str, name: str) -> Path:
    """A kernel of Solo5's own tests, where there is one and it can be run."""
    found = next((path for each in _KERNELS.split(":") if (path := Path(each) / f"{test}.{name}").exists()), None)
    if found is None:
        pytest.skip(f"SOLO5_TESTS names no directory with {test}.{name}: not run")
    if name == "hvt" and not Path("/dev/kvm").exists():
        pytest.skip("/dev/kvm is missing: solo5-hvt not run")
    return found


@pytest.mark.parametrize("name", ["spt", "hvt"])
async def test_a_tender_runs_a_kernel(run: Run, name: Literal["spt", "hvt"]) -> None:
    program = tender(name)
    kernel = solo5_kernel("test_hello", name)
    headers = kernels.read(kernel, kernel.name)
    assert headers is not None
    assert (headers.tender, headers.net_devices) == (name, ())
    launch = await Solo5(name, program, run).launch(Machine(kernel=kernel, memory=32, words=("Hello_Solo5",)))
    done = await run(launch.argv, timeout=20)
    assert done.status == 0, done.stderr.decode(errors="replace")
    assert b"Hello_Solo5" in done.stdout
    assert b"SUCCESS" in done.stdout


@pytest.mark.parametrize("name", ["spt", "hvt"])
async def test_a_tender_has_a_disk(run: Run, name: Literal["spt", "hvt"], tmp_path: Path) -> None:
    """Solo5's own test of its block devices reads back what it writes, and finds the disk's end."""
    program = tender(name)
    kernel = solo5_kernel("test_blk", name)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    headers = kernels.read(kernel, kernel.name)
    assert headers is not None
    assert headers.block_devices == ("storage",)
    machine = Machine(kernel=kernel, memory=32, disks=(Disk(path=disk, device="storage", read_only=False),))
    launch = await Solo5(name, program, run).launch(machine)
    done = await run(launch.argv, timeout=20)
    assert done.status == 0 and b"SUCCESS" in done.stdout, done.stderr.decode(errors="replace")
    assert disk.read_bytes().startswith(b"0123456789")


@pytest.mark.parametrize("name", ["spt", "hvt"])
def test_a_tender_writes_to_every_disk(name: str, tmp_path: Path) -> None:
    """It does not start with one that it may not write to: so `writes_disks` is true."""
    program, kernel, disk = tender(name), solo5_kernel("test_blk", name), tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    subprocess.run(["mount", "--bind", "-o", "ro", disk, disk], check=True)
    try:
        done = subprocess.run([program, f"--block:storage={disk}", "--", kernel], capture_output=True, timeout=20)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert done.returncode != 0
    assert b"Could not open block device" in done.stderr
