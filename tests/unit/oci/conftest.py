"""An image of which tests ask what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.oci import elf
from tests.unit.oci.asking import ELSEWHERE, HERE, LINUX


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a kernel of each kind and a program."""
    (tmp_path / "bin").mkdir()
    files = {
        "hello.spt": elf.solo5(nets=[b"service0"], machine=HERE),
        "hello.hvt": elf.solo5(elf.HVT, machine=HERE),
        "hello.virtio": elf.solo5(elf.VIRTIO, machine=HERE),
        "blk.spt": elf.solo5(blocks=[b"storage"], machine=HERE),
        "other": elf.program(ELSEWHERE),
        "other.spt": elf.solo5(machine=ELSEWHERE),
        "cut.spt": elf.solo5(machine=HERE)[:-8],
        "cut": elf.program(HERE)[:-8],
        "vmlinuz": LINUX,
        "initrd": b"070701",
        "bin/sh": elf.program(HERE),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path
