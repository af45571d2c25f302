"""QEMU as a monitor: what it is handed, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest

from shim import config
from shim.errors import InvalidRequest, NodeFault
from shim.monitors import qemu
from shim.monitors.base import Machine
from shim.monitors.qemu import Qemu
from tests.unit.monitors.fake import FakeRun, program
from tests.unit.monitors.nodes import works

_MACHINE = Machine(kernel=Path("/unikernel/kernel"), memory=64, words=("console=ttyS0", "--", "x"))


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return program(tmp_path, "qemu")


@pytest.fixture
def vhost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for /dev/vhost-net: this is about who is given descriptors of it, and when."""
    path = tmp_path / "vhost-net"
    path.write_text("")
    monkeypatch.setattr(qemu, "_VHOST", path)
    return path


@pytest.mark.parametrize(
    ("wish", "accelerator", "count", "opened"),
    [
        ("auto", "kvm", 2, 2),
        ("auto", "kvm", 0, 0),
        ("auto", "tcg", 1, 0),
        ("on", "kvm", 1, 1),
        ("on", "tcg", 1, 1),
        ("off", "kvm", 1, 0),
    ],
)
async def test_vhost(
    tmp_path: Path,
    binary: Path,
    vhost: Path,
    wish: Literal["auto", "on", "off"],
    accelerator: str,
    count: int,
    opened: int,
) -> None:
    monitor = Qemu(config.Qemu(path=os.fspath(binary), vhost=wish), FakeRun(works(accelerator)), tmp_path)
    found = await monitor.open_vhost(count)
    try:
        assert [Path(f"/proc/self/fd/{descriptor}").readlink() for descriptor in found] == [vhost] * opened
    finally:
        for descriptor in found:
            os.close(descriptor)


async def test_without_vhost(tmp_path: Path, binary: Path, vhost: Path) -> None:
    vhost.unlink()
    run = FakeRun(works("kvm"))
    assert await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).open_vhost(1) == ()
    with pytest.raises(NodeFault, match=r"cannot be opened: No such file .*; load the module vhost_net, or set"):
        await Qemu(config.Qemu(path=os.fspath(binary), vhost="on"), run, tmp_path).open_vhost(1)


async def test_not_installed(tmp_path: Path) -> None:
    monitor = Qemu(config.Qemu(path="qemu-that-is-nowhere"), FakeRun(works()), tmp_path)
    with pytest.raises(NodeFault, match=r"monitor qemu is not installed .*monitors\.qemu\.path"):
        await monitor.attaches_by_name()


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
async def test_the_program_is_the_architectures(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, f"qemu-system-{architecture}")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    launch = await Qemu(config.Qemu(accel="tcg"), FakeRun(works("tcg")), tmp_path, architecture).launch(_MACHINE)
    assert launch.argv[0] == os.fspath(path)


@pytest.mark.parametrize(
    ("architecture", "kind", "machine"),
    [
        ("x86_64", "", "microvm,rtc=on"),
        ("x86_64", "microvm", "microvm,rtc=on"),
        ("x86_64", "q35", "q35,sata=off,smbus=off,vmport=off"),
        ("aarch64", "", "virt,gic-version=max"),
        ("aarch64", "virt", "virt,gic-version=max"),
    ],
)
async def test_the_machine_that_is_asked_for(
    tmp_path: Path, binary: Path, architecture: str, kind: str, machine: str
) -> None:
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works("tcg")), tmp_path, architecture)
    launch = await monitor.launch(Machine(kernel=Path("/k"), memory=64, kind=kind))
    assert launch.argv[launch.argv.index("-M") + 1] == machine
    assert monitor.console == ("ttyAMA0" if architecture == "aarch64" else "ttyS0")


@pytest.mark.parametrize(
    ("architecture", "kind", "known"),
    [("x86_64", "virt", "microvm, q35"), ("x86_64", "pc", "microvm, q35"), ("aarch64", "q35", "virt")],
)
async def test_a_machine_that_there_is_not(
    tmp_path: Path, binary: Path, architecture: str, kind: str, known: str
) -> None:
    run = FakeRun(works("tcg"))
    with pytest.raises(InvalidRequest, match=f"{kind!r} on {architecture}; known are {known}"):
        await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path, architecture).launch(
            Machine(kernel=Path("/k"), memory=64, kind=kind)
        )
    assert run.asked == []


async def test_another_architecture(tmp_path: Path, binary: Path) -> None:
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works("tcg")), tmp_path, "riscv64")
    with pytest.raises(NodeFault, match="riscv64"):
        await monitor.launch(_MACHINE)
    with pytest.raises(NodeFault, match="riscv64"):
        await monitor.open_vhost(1)


@pytest.mark.parametrize("cpus", [0, 65])
async def test_more_processors_than_there_are(tmp_path: Path, binary: Path, cpus: int) -> None:
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works("tcg")), tmp_path)
    with pytest.raises(InvalidRequest, match=f"1 to 64 processors, not {cpus}"):
        await monitor.launch(Machine(kernel=Path("/k"), memory=64, cpus=cpus))
