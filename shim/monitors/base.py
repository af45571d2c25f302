"""The contract between the shim and one monitor: how it is started, and with what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from shim.process.spawn import Completed


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One NIC of the guest.

    `fd` is the tap's number in the monitor's process, where that inherits it, `tap` its name in the pod's namespace,
    `vhost` the number of the NIC's vhost-net descriptor (None without one); `device` is the name by which a kernel's
    manifest calls it ("" where the kernel has none).
    """

    fd: int
    tap: str
    mac: str
    mtu: int
    device: str = ""
    vhost: int | None = None


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A block device of the guest: an image file or a block device of the node, at `path` as the monitor sees it.
    `device` is the name by which a kernel's manifest calls it ("" where the kernel has none)."""

    path: Path
    read_only: bool = True
    device: str = ""


class SharedDirectory(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that the guest reaches through its monitor (9p): `path` as the monitor sees it, `tag` as the guest
    asks for it."""

    path: Path
    tag: str
    read_only: bool = True


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: paths are as the monitor sees them; memory is the guest's, in MiB.

    `kind` is the machine asked for, among those that the monitor has ("" for its own choice). `control` is the number,
    in the monitor's process, of the listening socket by which it takes commands. `cpus` are virtual processors. `clock`
    is the word by which the guest's kernel takes the rate of its processor's counter, in kHz, from a monitor that knows
    it ("" where it has none). `deaf` says that the kernel can be started by PVH, and then reads no command line.
    """

    kernel: Path
    memory: int
    words: tuple[str, ...] = ()
    initrd: Path | None = None
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    directories: tuple[SharedDirectory, ...] = ()
    kind: str = ""
    cpus: int = 1
    clock: str = ""
    deaf: bool = False
    control: int | None = None


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a monitor is started.

    `argv[0]` is an absolute path on the node. `devices` are the device nodes it opens; `shares` are directories or
    files of the node that it reads, bound read-only at the same path; `by_name` says that it attaches taps by name
    and so must run in the pod's network namespace, its taps persistent and owned by its user; `in_pod` that it must run
    there although it has its taps as descriptors. `files` are small files made for this monitor alone, by the absolute
    path at which it sees them, under /unikernel. `machine` is what `Booted.boot` tells it once it runs, b"" where
    everything is on its command line and in its files.
    """

    argv: tuple[str, ...]
    devices: tuple[Path, ...] = ()
    shares: tuple[Path, ...] = ()
    by_name: bool = False
    in_pod: bool = False
    files: Mapping[Path, bytes] = {}
    machine: bytes = b""


class Monitor(Protocol):
    """One monitor: probed once, then a pure function from machine to launch."""

    name: str
    #: Seconds within which a monitor that cannot run its kernel has said so and died.
    settle: float
    #: Whether it speaks virtio-net headers, by which checksums and segmentation are left to whoever can do them.
    vnet_hdr: bool
    #: Seconds that a guest is given to power down once it is asked; 0 where none is ever asked. Only a monitor that can
    #: ask, or is `Booted`, is handed a control socket.
    powerdown: float
    #: What Linux calls the machine's serial console: a guest that writes there is heard on the container's stdout.
    console: str
    #: The most virtual processors it gives a guest.
    cpus: int
    #: Whether a guest can reach directories of the node through it (`Machine.directories`).
    shares_directories: bool
    #: Whether it opens every disk for writing, also one that is to be read only: such a disk must be the container's
    #: own, or one that it may change.
    writes_disks: bool

    def overhead(self, memory: int) -> int:
        """What it needs beside a guest of `memory`, both in MiB, when the guest uses all of that: its own, and the
        kernel's for the guest's page tables, which count against the same limit."""
        ...

    async def attaches_by_name(self) -> bool:
        """Whether it takes taps by name only. Raises NodeFault where it is not installed."""
        ...

    async def open_vhost(self, count: int) -> tuple[int, ...]:
        """`count` descriptors of vhost-net for a guest's NICs, the caller's to close; none where it does without.

        Raises NodeFault where vhost-net is demanded and is not there.
        """
        ...

    async def launch(self, machine: Machine) -> Launch:
        """Raises NodeFault where the monitor is not installed or cannot run here, InvalidRequest or Unsupported where
        it cannot make such a machine."""
        ...

    async def power_down(self, directory: Path) -> None:
        """Ask the guest to power down, as by its machine's power button; returns once the monitor has passed it on.

        `directory` holds the control socket that the monitor was handed. The caller says how long this may take: a
        monitor that is stopped answers never. Raises Unreachable, NodeFault, Unsupported where `powerdown` is 0.
        """
        ...


#: Opens the guest's tap of that name; the descriptor is the caller's to close. Raises NetworkFault.
OpenTap = Callable[[str], Awaitable[int]]


@runtime_checkable
class Booted(Monitor, Protocol):
    """A monitor that starts without a machine and is told it over its control socket, each tap as a descriptor that is
    sent along. It is always handed such a socket, and inherits no tap."""

    async def boot(self, directory: Path, machine: bytes, open_tap: OpenTap) -> None:
        """Make the guest's machine and let it run; `machine` is the launch's, `directory` as for `power_down`.

        May be repeated after a daemon that was killed meanwhile: what is done already stays as it is. The caller says
        how long this may take. Raises NodeFault with the monitor's words where it refuses, Unreachable where it hangs
        up, and what `open_tap` raises.
        """
        ...


class Run(Protocol):
    """How a monitor's probes are run: argv[0] absolute, killed after `timeout` seconds with TimedOut."""

    def __call__(self, argv: Sequence[str], *, timeout: float) -> Awaitable[Completed]:
        """The program's end and output."""
        ...
