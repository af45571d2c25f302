"""QEMU's command line, word by word: golden files of each machine, one word a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from shim.errors import InvalidRequest
from shim.monitors.acceleration import Acceleration
from shim.monitors.base import Disk, Machine, Nic, SharedDirectory
from shim.monitors.machines import choose
from shim.monitors.qemu_arguments import arguments
from tests.unit.monitors import golden

_TCG, _KVM = Acceleration(accel="tcg", khz=2600000), Acceleration(accel="kvm")
_NICS = tuple(Nic(fd=3 + n, tap=f"tap{n}", mac=f"02:00:00:00:00:0{n}", mtu=1450) for n in range(2))
_VHOST = tuple(Nic(fd=3 + n, tap=f"tap{n}", mac=f"02:00:00:00:00:0{n}", mtu=1500, vhost=5 + n) for n in range(2))
_DISKS = (
    Disk(path=Path("/unikernel/root.squashfs")),
    Disk(path=Path("/dev/disk-a,b"), read_only=False, device="data"),
)
_DIRECTORIES = (
    SharedDirectory(path=Path("/unikernel/config"), tag="config"),
    SharedDirectory(path=Path("/unikernel/a, b"), tag="da,ta", read_only=False),
)
_WORDS = ("console=ttyS0", "quiet", "--", "x")
_CASES = {
    "microvm-tcg": ("x86_64", "", _TCG, Machine(kernel=Path("/k"), memory=64, words=_WORDS, clock="tsc_early_khz")),
    "microvm-tcg-no-clock": ("x86_64", "", _TCG, Machine(kernel=Path("/k"), memory=64, words=_WORDS)),
    "microvm-kvm": ("x86_64", "", _KVM, Machine(kernel=Path("/k"), memory=64, words=_WORDS, clock="tsc_early_khz")),
    **{
        f"{kind}-everything": (
            architecture,
            kind,
            _KVM,
            Machine(
                kernel=Path("/k"),
                memory=512,
                words=_WORDS,
                initrd=Path("/i"),
                nics=_NICS,
                disks=_DISKS,
                directories=_DIRECTORIES,
                cpus=4,
                control=7,
            ),
        )
        for architecture, kind in (("x86_64", "microvm"), ("x86_64", "q35"), ("aarch64", "virt"))
    },
    "q35-tcg-vhost": ("x86_64", "q35", _TCG, Machine(kernel=Path("/k"), memory=64, nics=_VHOST)),
    "virt-tcg": ("aarch64", "virt", Acceleration(accel="tcg"), Machine(kernel=Path("/k"), memory=64, words=("a",))),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_golden(name: str) -> None:
    architecture, kind, acceleration, machine = _CASES[name]
    found = arguments(Path("/usr/bin/qemu"), machine, choose(kind, architecture), acceleration)
    golden.check(f"qemu/{name}.txt", "\n".join(found) + "\n")


def test_every_golden_file_is_a_case() -> None:
    assert {path.stem for path in (Path(golden.__file__).parent / "qemu").iterdir()} == set(_CASES)


@pytest.mark.parametrize(
    ("kind", "architecture", "room"), [("microvm", "x86_64", 24), ("q35", "x86_64", 30), ("virt", "aarch64", 31)]
)
def test_more_devices_than_the_machine_has_room_for(kind: str, architecture: str, room: int) -> None:
    def made(count: int) -> tuple[str, ...]:
        disks = (Disk(path=Path("/d")),) * (count - 1)
        machine = Machine(kernel=Path("/k"), memory=64, nics=_NICS[:1], disks=disks)
        return arguments(Path("/q"), machine, choose(kind, architecture), _KVM)

    assert len([word for word in made(room) if word.startswith("virtio-")]) == room
    with pytest.raises(
        InvalidRequest, match=f"{room + 1} NICs, disks and directories are more than the {room} that {kind}"
    ):
        made(room + 1)


def test_a_tag_that_is_too_long() -> None:
    machine = Machine(kernel=Path("/k"), memory=64, directories=(SharedDirectory(path=Path("/d"), tag="é" * 16),))
    with pytest.raises(InvalidRequest, match="at most 31 bytes"):
        arguments(Path("/q"), machine, choose("", "x86_64"), _KVM)
