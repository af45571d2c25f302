"""Machines for the golden files: each monitor is asked for the same ones."""

from __future__ import annotations

from pathlib import Path

from shim.monitors.base import Disk, Machine, Nic

_KERNEL = Path("/unikernel/kernel")

SMALL = Machine(kernel=_KERNEL, memory=32, words=("plain", "--flag"))
LARGE = Machine(
    kernel=_KERNEL,
    memory=256,
    words=("console=ttyS0", 'GREETING="two words"', "back\\slash", "--", "a,b"),
    initrd=Path("/unikernel/initrd"),
    nics=(
        Nic(fd=3, tap="tap0", mac="02:00:00:00:00:01", mtu=1450),
        Nic(fd=4, tap="tap1", mac="02:00:00:00:00:02", mtu=9000),
    ),
    disks=(Disk(path=Path("/unikernel/disk0")), Disk(path=Path("/unikernel/disk1"), read_only=False)),
    cpus=2,
    control=5,
)
