"""QEMU: its command line, and how the accelerator is chosen."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from shim import config
from shim.errors import NodeFault
from shim.monitors import probe, qemu
from shim.monitors.base import Machine, Nic
from shim.monitors.qemu import Acceleration, Qemu, arguments
from shim.oci import kernel
from shim.process.spawn import Completed
from tests.unit.monitors.fake import FakeRun, program

_TICKS = 142_590_000  # in 54.9 ms: 2.596 GHz
_PASSED = Completed(probe.STATUS, struct.pack("<5I", _TICKS + 9, _TICKS, _TICKS + 5, _TICKS * 2, _TICKS + 1), b"")
_KHZ = 2_596_106
_MACHINE = Machine(kernel=Path("/unikernel/kernel"), memory=64, words=("console=ttyS0", "--", "x"))


def accel(argv: Sequence[str]) -> str:
    return argv[argv.index("-M") + 1].split(",")[1].removeprefix("accel=")


def works(*accelerators: str) -> Callable[[Sequence[str]], Completed | None]:
    return lambda argv: _PASSED if accel(argv) in accelerators else None


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a /dev/kvm."""
    path = tmp_path / "kvm"
    path.write_text("")
    monkeypatch.setattr(qemu, "_KVM", path)
    return path


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return program(tmp_path, "qemu")


def test_command_line() -> None:
    nic = Nic(fd=3, tap="tap0", mac="02:00:00:00:00:01", mtu=1450)
    machine = Machine(kernel=Path("/k"), memory=64, words=("a", "--", "b"), initrd=Path("/i"), nics=(nic,))
    assert arguments(Path("/usr/bin/qemu"), machine, Acceleration(accel="tcg", khz=2600000)) == (
        "/usr/bin/qemu",
        *("-M", "microvm,accel=tcg,rtc=on", "-cpu", "max"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-m", "64", "-smp", "1"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-kernel", "/k", "-append", "tsc_early_khz=2600000 a -- b", "-initrd", "/i"),
        *("-netdev", "tap,id=net0,fd=3"),
        *("-device", "virtio-net-device,netdev=net0,mac=02:00:00:00:00:01,host_mtu=1450"),
    )


def test_a_control_socket() -> None:
    found = arguments(Path("/q"), Machine(kernel=Path("/k"), memory=64, control=5), Acceleration(accel="kvm"))
    assert found[-4:] == (
        *("-chardev", "socket,id=control,fd=5,server=on,wait=off"),
        *("-mon", "chardev=control,mode=control"),
    )


def test_a_nic_with_vhost() -> None:
    nics = tuple(Nic(fd=3 + n, tap=f"tap{n}", mac=f"02:00:00:00:00:0{n}", mtu=1500, vhost=5 + n) for n in range(2))
    machine = Machine(kernel=Path("/k"), memory=64, nics=nics)
    found = arguments(Path("/q"), machine, Acceleration(accel="kvm"))
    assert [word for word in found if word.startswith("tap,")] == [
        "tap,id=net0,fd=3,vhost=on,vhostfd=5",
        "tap,id=net1,fd=4,vhost=on,vhostfd=6",
    ]


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


def test_kvm_tells_the_guest_itself() -> None:
    found = arguments(Path("/q"), _MACHINE, Acceleration(accel="kvm"))
    assert found[1:5] == ("-M", "microvm,accel=kvm,rtc=on", "-cpu", "host")
    assert found[found.index("-append") + 1] == "console=ttyS0 -- x"


async def test_kvm_where_a_guest_ran(tmp_path: Path, binary: Path, device: Path) -> None:
    run = FakeRun(works("kvm", "tcg"))
    launch = await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).launch(_MACHINE)
    assert accel(launch.argv) == "kvm"
    assert launch.devices == (device,)
    assert [accel(argv) for argv in run.asked] == ["kvm"]


async def test_tcg_where_kvm_hangs(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(works("tcg"))
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path)
    assert await monitor.acceleration(binary) == Acceleration(accel="tcg", khz=_KHZ)
    assert (await monitor.launch(_MACHINE)).devices == ()
    assert [accel(argv) for argv in run.asked] == ["kvm", "tcg"]


@pytest.mark.parametrize("status", [0, 1, -6, 134])
async def test_an_exit_that_is_not_the_guests(tmp_path: Path, binary: Path, status: int) -> None:
    def answer(argv: Sequence[str]) -> Completed:
        return _PASSED if accel(argv) == "tcg" else Completed(status, _PASSED.stdout, b"")

    found = await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(answer), tmp_path).acceleration(binary)
    assert found.accel == "tcg"


async def test_no_device(tmp_path: Path, binary: Path, device: Path) -> None:
    device.unlink()
    run = FakeRun(works("kvm", "tcg"))
    assert (await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).acceleration(binary)).accel == "tcg"
    assert [accel(argv) for argv in run.asked] == ["tcg"]


async def test_nothing_works(tmp_path: Path, binary: Path) -> None:
    found = await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works()), tmp_path).acceleration(binary)
    assert found == Acceleration(accel="tcg")


async def test_tcg_as_configured(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(works("kvm", "tcg"))
    found = await Qemu(config.Qemu(path=os.fspath(binary), accel="tcg"), run, tmp_path).acceleration(binary)
    assert found == Acceleration(accel="tcg", khz=_KHZ)


async def test_kvm_as_configured(tmp_path: Path, binary: Path) -> None:
    monitor = Qemu(config.Qemu(path=os.fspath(binary), accel="kvm"), FakeRun(works("kvm")), tmp_path)
    assert (await monitor.acceleration(binary)).accel == "kvm"


async def test_kvm_as_configured_does_not_work(tmp_path: Path, binary: Path) -> None:
    with pytest.raises(NodeFault, match=r"KVM does not run a guest here; set monitors\.qemu\.accel"):
        await Qemu(config.Qemu(path=os.fspath(binary), accel="kvm"), FakeRun(works("tcg")), tmp_path).launch(_MACHINE)


async def test_many_pods_ask_once(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(works("tcg"))
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path)
    await asyncio.gather(*(monitor.launch(_MACHINE) for _ in range(20)))
    assert len(run.asked) == 2


async def test_the_next_daemon_remembers(tmp_path: Path, binary: Path) -> None:
    first = await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works("tcg")), tmp_path).acceleration(binary)
    run = FakeRun(works("kvm"))
    assert await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).acceleration(binary) == first
    assert run.asked == []


@pytest.mark.parametrize("change", ["program", "boot", "wish", "file"])
async def test_a_finding_that_no_longer_holds(
    tmp_path: Path, binary: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works("kvm")), tmp_path).acceleration(binary)
    if change == "program":
        binary.write_text("newer")
    elif change == "boot":
        boot = tmp_path / "boot"
        boot.write_text("another\n")
        monkeypatch.setattr(qemu, "_BOOT", boot)
    elif change == "file":
        (tmp_path / "acceleration.json").write_text('{"key": 1')
    run = FakeRun(works("tcg"))
    again = Qemu(config.Qemu(path=os.fspath(binary), accel="tcg" if change == "wish" else "auto"), run, tmp_path)
    assert (await again.acceleration(binary)).accel == "tcg"
    assert run.asked


async def test_a_cancelled_probe_leaves_no_file(tmp_path: Path, binary: Path) -> None:
    started = asyncio.Event()

    async def stuck(argv: Sequence[str], *, timeout: float) -> Completed:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    monitor = Qemu(config.Qemu(path=os.fspath(binary)), stuck, tmp_path)
    before = sorted(tmp_path.iterdir())
    task = asyncio.ensure_future(monitor.launch(_MACHINE))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(tmp_path.iterdir()) == before


async def test_not_installed(tmp_path: Path) -> None:
    monitor = Qemu(config.Qemu(path="qemu-that-is-nowhere"), FakeRun(works()), tmp_path)
    with pytest.raises(NodeFault, match=r"monitor qemu is not installed .*monitors\.qemu\.path"):
        await monitor.attaches_by_name()


def test_the_probe_is_a_kernel(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(probe.kernel())
    assert kernel.read(path, "probe") == kernel.Kernel(family="linux", machine="x86_64")


@pytest.mark.parametrize(
    ("measured", "khz"), [(_PASSED.stdout, _KHZ), (b"", None), (_PASSED.stdout[:-1], None), (bytes(20), None)]
)
def test_rate(measured: bytes, khz: int | None) -> None:
    assert probe.rate(measured) == khz
