"""What a monitor needs beside its guest's memory: the least limit under which a guest that writes to all of it is not
killed, found by trying. Prints it; judges that what is left room for (`Monitor.overhead`) is enough.

The guest reads its disk from several processes at once, so that QEMU's threads for that are counted, too.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from shim import config
from shim.monitors.base import Disk, Launch, Machine
from shim.monitors.qemu import Qemu
from shim.process.reaper import Reaper
from shim.process.spawn import run as run_program
from tests.integration import guest

pytestmark = pytest.mark.timeout(600)

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

    def held(self) -> int:
        """Bytes that cannot be dropped: processes' own, and the kernel's for them (page tables among it)."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        if self._old:
            return int(stat["rss"]) + int((self.path / "memory.kmem.usage_in_bytes").read_text())
        return int(stat["anon"]) + int(stat["kernel"])


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


@pytest.fixture
async def qemu(tmp_path: Path) -> AsyncIterator[Qemu]:
    reaper = Reaper()
    reaper.start()
    yield Qemu(config.Qemu(), functools.partial(run_program, reaper), tmp_path)
    reaper.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A Linux guest that writes to all its memory: the kernel does, when it frees it at first (init_on_free)."""
    initrd, disk = tmp_path / "initrd", tmp_path / "disk"
    initrd.write_bytes(guest.initrd(more_modules=True, files={"/init": _INIT.encode()}))
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
    room = qemu.overhead(memory)
    assert await asyncio.to_thread(survives, launch, memory + room)
    found = await asyncio.to_thread(least, launch, memory, room)
    accelerator = launch.argv[launch.argv.index("-accel") + 1].split(",")[0]
    print(f"\nqemu {kind} {accelerator}, guest {memory} MiB: {found} MiB beside it; {room} are left room for")
