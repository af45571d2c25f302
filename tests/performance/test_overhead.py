"""What a monitor needs beside its guest's memory: the least limit under which a guest that writes to all of it is not
killed, found by trying. Prints it; judges that what is left room for (`Monitor.overhead`) is enough.

The guest reads its disk from several processes at once, so that QEMU's threads for that are counted, too.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import struct
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from shim import config
from shim.monitors.base import Disk, Launch, Machine, Run
from shim.monitors.firecracker import CONFIG, Firecracker
from shim.monitors.qemu import Qemu
from shim.monitors.solo5 import Solo5
from shim.process.reaper import Reaper
from shim.process.spawn import run as run_program
from tests.integration import guest, paths, small_kernel
from tests.unit.oci import elf

pytestmark = [pytest.mark.timeout(600), pytest.mark.figure("overhead", on_request=True)]

_MIB = 1 << 20
_DISK = 64 * _MIB
_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
for m in $($b cat /modules/order); do $b insmod /modules/$m.ko; done
for at in 0 8 16 24 32 40 48 56; do $b dd if=/dev/vda of=/dev/null bs=64k skip=${at}0 count=128 2>/dev/null & done
wait
echo "guest: done"
$b poweroff -f; $b reboot -f
"""


class Cgroup:
    """A memory cgroup of version 1 or 2 with a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._old = Path("/sys/fs/cgroup/memory").is_dir()
        self.path = Path("/sys/fs/cgroup", "memory" if self._old else "", f"overhead-{uuid.uuid4().hex[:8]}")
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self._old else "memory.max")).write_text(str(limit))
        if not self._old:
            (self.path / "memory.swap.max").write_text("0")

    def kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        events = (self.path / ("memory.oom_control" if self._old else "memory.events")).read_text()
        return next(int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill "))


@contextmanager
def limited(limit: int) -> Iterator[Cgroup]:
    """The cgroup, removed afterwards."""
    cgroup = Cgroup(limit)
    try:
        yield cgroup
    finally:
        cgroup.path.rmdir()


def survives(launch: Launch, limit: int) -> bool:
    """Whether what is launched comes to its end under `limit` MiB, and is not killed."""
    with limited(limit * _MIB) as cgroup:
        enter = f'echo $$ >{cgroup.path}/cgroup.procs && exec "$@"'
        done = subprocess.run(
            ["/bin/sh", "-c", enter, "sh", *launch.argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=120
        )
        said = done.stdout.decode(errors="replace")
        killed = cgroup.kills() > 0
        assert killed or (done.returncode == 0 and "guest: done" in said), (said, done.stderr)
        return not killed


def least(launch: Launch, memory: int, enough: int) -> int:
    """The least limit in MiB, less the guest's memory, under which it survives; `enough` is known to be."""
    low, high = 0, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if survives(launch, memory + middle) else (middle, high)
    return high


async def show(name: str, launch: Launch, memory: int, room: int) -> None:
    """Print what it needs beside its guest; judge that `room` is enough."""
    assert await asyncio.to_thread(survives, launch, memory + room)
    found = await asyncio.to_thread(least, launch, memory, room)
    print(f"\n{name}, guest {memory} MiB: {found} MiB beside it; {room} are left room for")


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    reaper = Reaper()
    reaper.start()
    yield functools.partial(run_program, reaper)
    reaper.stop()


@pytest.fixture
def qemu(run: Run, tmp_path: Path) -> Qemu:
    return Qemu(config.Qemu(), run, tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A Linux guest that writes to all its memory: the kernel does, when it frees it at first (init_on_free)."""
    initrd, disk = tmp_path / "initrd", tmp_path / "disk"
    initrd.write_bytes(guest.initrd(more_modules=guest.MODULES_MORE, files={"/init": _INIT.encode()}))
    disk.touch()
    os.truncate(disk, _DISK)
    words = ("console=ttyS0", "quiet", "panic=-1", "reboot=t", "init_on_free=1")
    return Machine(
        kernel=guest.kernel(), memory=128, words=words, initrd=initrd, disks=(Disk(path=disk),), clock="tsc_early_khz"
    )


@pytest.mark.parametrize("kind", ["microvm", "q35"])
@pytest.mark.parametrize("memory", [128, 4096])
async def test_qemu(qemu: Qemu, machine: Machine, kind: str, memory: int) -> None:
    launch = await qemu.launch(msgspec.structs.replace(machine, kind=kind, memory=memory))
    accelerator = launch.argv[launch.argv.index("-accel") + 1].split(",")[0]
    await show(f"qemu {kind} {accelerator}", launch, memory, qemu.overhead(memory))


# The tender hands over the memory's size, and where the kernel ends (Solo5, include/spt_abi.h). Its seccomp filter
# allows write(2) to the standard output, and exit_group(2).
_SAID = b"guest: done\n"
_BASE = 0x100000  # where Solo5's kernels are linked


def touching() -> bytes:
    """A Solo5 kernel for spt on x86-64 that writes to each page behind itself."""
    notes = elf.abi(elf.SPT), elf.manifest()
    at = 64 + 56 * (1 + len(notes))
    code = bytes.fromhex(
        "48 8b 47 08  48 8b 0f"  # mov rax, [rdi + 8]; mov rcx, [rdi]
        "88 00  48 05 00100000"  # again: mov [rax], al; add rax, 0x1000
        "48 39 c8  72 f3"  # cmp rax, rcx; jb again
        "b8 01000000  bf 01000000"  # mov eax, 1 (write); mov edi, 1
    )
    ending = bytes.fromhex("0f 05  b8 e7000000  31 ff  0f 05")  # syscall; mov eax, 231; xor edi, edi; syscall
    text = _BASE + len(code) + 10 + len(ending)
    code += struct.pack("<BIBI", 0xBE, text, 0xBA, len(_SAID)) + ending + _SAID  # mov esi, text; mov edx, length
    headers, body = b"", b"".join(notes)
    for note in notes:
        headers += struct.pack("<IIQQQQQQ", 4, 4, at, 0, 0, len(note), len(note), 4)
        at += len(note)
    code_at = -(-at // 4096) * 4096
    load = struct.pack("<IIQQQQQQ", 1, 5, code_at, _BASE, _BASE, len(code), len(code), 4096)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE, 64, 0, 0, 64, 56, 1 + len(notes), 0, 0, 0)
    return (header + load + headers + body).ljust(code_at, b"\0") + code


@pytest.mark.parametrize("memory", [32, 512, 2048])
async def test_spt(run: Run, tmp_path: Path, memory: int) -> None:
    program = shutil.which("solo5-spt")
    if program is None:
        pytest.skip("solo5-spt is not on PATH: not run")
    kernel = tmp_path / "kernel"
    kernel.write_bytes(touching())
    spt = Solo5("spt", program, run)
    launch = await spt.launch(Machine(kernel=kernel, memory=memory))
    await show("spt", launch, memory, spt.overhead(memory))


@pytest.mark.parametrize(("memory", "cpus"), [(128, 1), (128, 32), (1024, 1), (2048, 1)])
async def test_firecracker(run: Run, tmp_path: Path, memory: int, cpus: int) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is missing: Firecracker not run")
    kernel, written = tmp_path / "kernel", tmp_path / CONFIG.name
    kernel.write_bytes(small_kernel.kernel(touches=memory))
    program = paths.cached("firecracker", "firecracker")
    firecracker = Firecracker(config.Firecracker(path=os.fspath(program)), run)
    launch = await firecracker.launch(Machine(kernel=kernel, memory=memory, cpus=cpus, words=("guest:", "done")))
    written.write_bytes(launch.files[CONFIG])
    argv = tuple(os.fspath(written) if word == str(CONFIG) else word for word in launch.argv)
    launch = msgspec.structs.replace(launch, argv=argv)
    await show(f"firecracker, {cpus} processors", launch, memory, firecracker.overhead(memory))
