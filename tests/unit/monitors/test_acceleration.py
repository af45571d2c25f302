"""How the accelerator is chosen, and what is kept of that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from shim import config
from shim.errors import NodeFault
from shim.monitors import acceleration, probe_arm, probe_x86
from shim.monitors.acceleration import Acceleration
from shim.monitors.base import Machine
from shim.monitors.qemu import Qemu
from shim.oci import kernel
from shim.process.spawn import Completed
from tests.unit.monitors.fake import FakeRun, program
from tests.unit.monitors.nodes import KHZ, PASSED, accel, works

_MACHINE = Machine(kernel=Path("/unikernel/kernel"), memory=64)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return program(tmp_path, "qemu")


def tried(run: FakeRun) -> list[str]:
    """The accelerators under which the probe was run."""
    return [accel(argv) for argv in run.asked if "-accel" in argv]


async def test_kvm_where_a_guest_ran(tmp_path: Path, binary: Path, device: Path) -> None:
    run = FakeRun(works("kvm", "tcg"))
    launch = await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).launch(_MACHINE)
    assert accel(launch.argv) == "kvm"
    assert launch.devices == (device,)
    assert tried(run) == ["kvm"]


async def test_tcg_where_kvm_hangs(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(works("tcg"))
    monitor = Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path)
    assert await monitor.acceleration(binary) == Acceleration(accel="tcg", khz=KHZ)
    assert (await monitor.launch(_MACHINE)).devices == ()
    assert tried(run) == ["kvm", "tcg"]


@pytest.mark.parametrize("status", [0, 1, -6, 134])
async def test_an_exit_that_is_not_the_guests(tmp_path: Path, binary: Path, status: int) -> None:
    def answer(argv: Sequence[str]) -> Completed | None:
        return Completed(status, PASSED.stdout, b"") if accel(argv) == "kvm" else works("tcg")(argv)

    found = await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(answer), tmp_path).acceleration(binary)
    assert found.accel == "tcg"


async def test_no_device(tmp_path: Path, binary: Path, device: Path) -> None:
    device.unlink()
    run = FakeRun(works("kvm", "tcg"))
    assert (await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).acceleration(binary)).accel == "tcg"
    assert tried(run) == ["tcg"]


async def test_nothing_works(tmp_path: Path, binary: Path) -> None:
    found = await Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(works()), tmp_path).acceleration(binary)
    assert found == Acceleration(accel="tcg")


async def test_tcg_as_configured(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(works("kvm", "tcg"))
    found = await Qemu(config.Qemu(path=os.fspath(binary), accel="tcg"), run, tmp_path).acceleration(binary)
    assert found == Acceleration(accel="tcg", khz=KHZ)


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
    assert tried(run) == ["kvm", "tcg"]
    assert run.asked[0] == (os.fspath(binary), "--version")


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
        monkeypatch.setattr(acceleration, "boot_id", lambda: "another")
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


def test_the_probe_is_a_kernel(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(probe_x86.kernel())
    assert kernel.read(path, "probe") == kernel.Kernel(family="linux", machine="x86_64")


@pytest.mark.parametrize(
    ("measured", "khz"), [(PASSED.stdout, KHZ), (b"", None), (PASSED.stdout[:-1], None), (bytes(20), None)]
)
def test_rate(measured: bytes, khz: int | None) -> None:
    assert probe_x86.rate(measured) == khz


async def test_a_version_that_is_too_old(tmp_path: Path, binary: Path) -> None:
    run = FakeRun(lambda argv: Completed(0, b"QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11+deb11u3)\n", b""))
    with pytest.raises(NodeFault, match=r"qemu 5\.2 is too old: 6\.0 or newer is needed; install a newer one"):
        await Qemu(config.Qemu(path=os.fspath(binary)), run, tmp_path).launch(_MACHINE)
    assert tried(run) == []
    assert list(tmp_path.glob("acceleration*")) == []


@pytest.mark.parametrize(
    ("done", "passed"),
    [
        (Completed(0, b"probe\n", b""), True),
        (Completed(0, b"", b""), False),
        (Completed(1, b"probe\n", b""), False),
        (Completed(-9, b"", b""), False),
    ],
)
def test_the_other_architectures_probe(done: Completed, passed: bool) -> None:
    assert probe_arm.passed(done) is passed


async def test_aarch64_has_a_probe_of_its_own(tmp_path: Path, binary: Path) -> None:
    kernels: list[bytes] = []

    def answer(argv: Sequence[str]) -> Completed:
        if "-kernel" in argv:
            kernels.append(Path(argv[argv.index("-kernel") + 1]).read_bytes())
            return Completed(0, b"probe\n", b"")
        return works()(argv) or Completed(1, b"", b"")

    monitor = Qemu(config.Qemu(path=os.fspath(binary)), FakeRun(answer), tmp_path, "aarch64")
    assert await monitor.acceleration(binary) == Acceleration(accel="kvm")
    assert kernels == [probe_arm.kernel()]
