"""Solo5's tenders: their command line, and what their version decides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from shim.errors import InvalidRequest, NodeFault, Unsupported
from shim.monitors.base import Disk, Machine, Nic
from shim.monitors.solo5 import Solo5, arguments, refuses_descriptor
from shim.process.spawn import Completed
from tests.unit.monitors import golden
from tests.unit.monitors.fake import FakeRun, program

_NIC = Nic(fd=3, tap="tap0", mac="02:00:00:00:00:01", mtu=1500, device="service0")
_MACHINE = Machine(kernel=Path("/unikernel/kernel"), memory=64, words=("--flag", "a b"), nics=(_NIC,))


def says(version: str) -> FakeRun:
    text = f"solo5-spt tender, version {version}\nABI version 2\n".encode()
    return FakeRun(lambda argv: Completed(0, b"", text))


_LARGE = Machine(
    kernel=_MACHINE.kernel,
    memory=512,
    words=_MACHINE.words,
    nics=(_NIC, Nic(fd=4, tap="tap1", mac="02:00:00:00:00:02", mtu=9000, device="management")),
    disks=(Disk(path=Path("/unikernel/disk0"), read_only=False, device="storage"),),
)


@pytest.mark.parametrize(
    ("name", "machine", "by_name"),
    [("spt-descriptor", _MACHINE, False), ("spt-large", _LARGE, False), ("hvt-by-name", _LARGE, True)],
)
def test_golden(name: str, machine: Machine, by_name: bool) -> None:
    found = arguments(Path(f"/usr/bin/solo5-{name[:3]}"), machine, by_name)
    golden.check(f"{name}.txt", "".join(f"{word}\n" for word in found))


@pytest.mark.parametrize(
    ("said", "by_name"),
    [
        ("solo5-spt tender, version v0.6.8\nABI version 1\n", False),
        ("solo5-spt tender, version v0.9.3\nABI version 2\n", False),
        ("solo5-hvt tender, version 0.9.0", False),
        ("solo5-spt tender, version v0.10.0\n", True),
        ("solo5-spt tender, version v0.12.1\n", True),
        ("solo5-spt tender, version v1.0.0\n", True),
        ("solo5-spt tender, version v0.9.3-12-g0123456\n", True),
        ("solo5-spt tender, version v0.9.3-dirty\n", True),
        ("solo5-spt tender, version 0123456\n", True),
        ("", True),
    ],
)
def test_versions(said: str, by_name: bool) -> None:
    assert refuses_descriptor(said) is by_name


@pytest.mark.parametrize("name", ["spt", "hvt"])
async def test_launch(tmp_path: Path, name: str) -> None:
    path = program(tmp_path, f"solo5-{name}")
    tender = Solo5("spt" if name == "spt" else "hvt", os.fspath(path), says("v0.9.3"))
    launch = await tender.launch(_MACHINE)
    assert launch.argv == arguments(path, _MACHINE, by_name=False)
    assert launch.devices == ((Path("/dev/kvm"),) if name == "hvt" else ())
    assert path in launch.shares
    assert await tender.open_vhost(1) == ()
    assert not launch.by_name


async def test_launch_by_name_needs_the_tun_device(tmp_path: Path) -> None:
    tender = Solo5("spt", os.fspath(program(tmp_path, "solo5-spt")), says("v0.12.1"))
    assert await tender.attaches_by_name()
    launch = await tender.launch(_MACHINE)
    assert launch.by_name
    assert launch.devices == (Path("/dev/net/tun"),)
    alone = await tender.launch(Machine(kernel=_MACHINE.kernel, memory=64))
    assert not alone.by_name
    assert alone.devices == ()


async def test_a_program_is_asked_once_until_it_is_replaced(tmp_path: Path) -> None:
    path = program(tmp_path, "solo5-spt")
    run = says("v0.9.3")
    tender = Solo5("spt", os.fspath(path), run)
    for _ in range(3):
        assert not await tender.attaches_by_name()
    assert run.asked == [(os.fspath(path), "--version")]
    path.unlink()
    program(tmp_path, "solo5-spt").write_text("newer")
    run.answer = says("v0.12.1").answer
    assert await tender.attaches_by_name()
    assert len(run.asked) == 2


async def test_not_installed() -> None:
    with pytest.raises(NodeFault, match=r"monitor hvt is not installed .*set monitors\.hvt\.path"):
        await Solo5("hvt", "solo5-hvt-that-is-nowhere", says("v0.9.3")).attaches_by_name()


async def test_a_tender_that_does_not_start(tmp_path: Path) -> None:
    def broken(argv: Sequence[str]) -> Completed:
        return Completed(127, b"", b"error while loading shared libraries: libseccomp.so.2\n")

    tender = Solo5("spt", os.fspath(program(tmp_path, "solo5-spt")), FakeRun(broken))
    with pytest.raises(NodeFault, match=r"does not start: error while loading .* libseccomp"):
        await tender.launch(_MACHINE)


async def test_a_tender_takes_no_commands(tmp_path: Path) -> None:
    tender = Solo5("spt", "solo5-spt", says("v0.9.3"))
    assert tender.powerdown == 0
    with pytest.raises(Unsupported):
        await tender.power_down(tmp_path)


def test_disks() -> None:
    disks = (
        Disk(path=Path("/unikernel/disk0"), device="storage"),
        Disk(path=Path("/dev/sda"), device="log", read_only=False),
    )
    machine = Machine(kernel=_MACHINE.kernel, memory=64, words=("x",), nics=(_NIC,), disks=disks)
    assert arguments(Path("/usr/bin/solo5-spt"), machine, by_name=False)[4:] == (
        "--block:storage=/unikernel/disk0",
        "--block:log=/dev/sda",
        "--",
        "/unikernel/kernel",
        "x",
    )


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        (Disk(path=Path("/d")), "this one has none; name the device, or leave the disk out"),
        (Disk(path=Path("/a b"), device="storage"), "no path with white space"),
        (Disk(path=Path("/a\tb"), device="storage"), "no path with white space"),
    ],
)
def test_a_disk_that_a_tender_cannot_have(disk: Disk, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        arguments(Path("/s"), Machine(kernel=Path("/k"), memory=64, disks=(disk,)), by_name=False)
