"""Firecracker: its configuration file, its command line, and what its version decides."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.config import Firecracker as Settings
from shim.errors import InvalidRequest, NodeFault, Unsupported
from shim.monitors.base import Disk, Machine, SharedDirectory
from shim.monitors.firecracker import CONFIG, Firecracker, configuration
from shim.process.spawn import Completed
from tests.unit.monitors import golden
from tests.unit.monitors.fake import FakeRun, program
from tests.unit.monitors.machines import LARGE, SMALL

_NEW = (1, 16)


def says(version: str) -> FakeRun:
    text = f"Firecracker {version}\n\n2026-01-01T00:00:00.000000000 [anonymous-instance:main] exiting\n".encode()
    return FakeRun(lambda argv: Completed(0, text, b""))


def monitor(directory: Path, version: str = "v1.12.1") -> Firecracker:
    return Firecracker(Settings(path=os.fspath(program(directory, "firecracker"))), says(version))


@pytest.mark.parametrize(
    ("name", "machine", "version"),
    [("small", SMALL, _NEW), ("large", LARGE, _NEW), ("large-1.15", LARGE, (1, 15))],
)
def test_the_file_is_as_before(name: str, machine: Machine, version: tuple[int, int]) -> None:
    golden.check(f"firecracker-{name}.json", configuration(machine, version).decode())


async def test_the_launch(tmp_path: Path) -> None:
    launch = await monitor(tmp_path).launch(LARGE)
    path = tmp_path / "firecracker"
    assert launch.argv == (
        *(str(path), "--no-api", "--config-file", "/unikernel/firecracker.json"),
        *("--level", "Error"),
    )
    assert launch.files == {CONFIG: configuration(LARGE, (1, 12))}
    assert launch.devices == (Path("/dev/kvm"), Path("/dev/net/tun"))
    assert launch.by_name
    assert path in launch.shares


async def test_without_a_nic_it_needs_neither_the_pods_namespace_nor_the_tun_device(tmp_path: Path) -> None:
    launch = await monitor(tmp_path).launch(SMALL)
    assert not launch.by_name
    assert launch.devices == (Path("/dev/kvm"),)


async def test_an_empty_command_line_is_said(tmp_path: Path) -> None:
    """Else Firecracker has words of its own for a kernel that may be none of Linux's."""
    launch = await monitor(tmp_path).launch(Machine(kernel=SMALL.kernel, memory=32))
    assert json.loads(launch.files[CONFIG])["boot-source"]["boot_args"] == ""


@pytest.mark.parametrize("version", ["v1.4.1", "v0.25.2"])
async def test_one_that_is_too_old(tmp_path: Path, version: str) -> None:
    with pytest.raises(NodeFault, match=r"firecracker \d\.\d+ is too old: 1\.5 or newer"):
        await monitor(tmp_path, version).launch(SMALL)


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20), max_size=8))
def test_words_arrive_as_they_are(words: list[str]) -> None:
    written = configuration(Machine(kernel=SMALL.kernel, memory=64, words=tuple(words)), _NEW)
    assert json.loads(written)["boot-source"]["boot_args"] == " ".join(words)


async def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    shared = SharedDirectory(path=Path("/x"), tag="data")
    for machine, kind, words in (
        (Machine(kernel=SMALL.kernel, memory=32, cpus=33), InvalidRequest, "1 to 32 processors, not 33"),
        (Machine(kernel=SMALL.kernel, memory=32, kind="q35"), Unsupported, "q35"),
        (Machine(kernel=SMALL.kernel, memory=32, directories=(shared,)), Unsupported, "shares no directories"),
        (Machine(kernel=SMALL.kernel, memory=32, words=("naïve",)), InvalidRequest, "ASCII"),
        (Machine(kernel=SMALL.kernel, memory=32, words=("a\nb",)), InvalidRequest, "ASCII"),
        (Machine(kernel=SMALL.kernel, memory=32, words=("x" * 2040,)), InvalidRequest, "2040 bytes, .* takes 2039"),
        (
            Machine(kernel=SMALL.kernel, memory=32, words=("x" * 2000,), nics=LARGE.nics),
            InvalidRequest,
            "2000 bytes, .* takes 1963",
        ),
    ):
        with pytest.raises(kind, match=words):
            await found.launch(machine)


def test_a_disk_that_is_written_is_flushed() -> None:
    """Firecracker's own default leaves a guest's flush undone."""
    machine = Machine(kernel=SMALL.kernel, memory=32, disks=(Disk(path=Path("/d"), read_only=False),))
    (drive,) = json.loads(configuration(machine, _NEW))["drives"]
    assert drive["cache_type"] == "Writeback"


async def test_nobody_can_be_asked(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    assert found.powerdown == 0
    assert await found.attaches_by_name()
    assert await found.open_vhost(1) == ()
    with pytest.raises(Unsupported, match="without its API"):
        await found.power_down(tmp_path)


async def test_not_installed() -> None:
    with pytest.raises(NodeFault, match=r"firecracker is not installed .*set monitors\.firecracker\.path"):
        await Firecracker(Settings(path="firecracker-that-is-nowhere"), says("v1.12.1")).attaches_by_name()


@pytest.mark.parametrize("words", [("/k", "a=1", "--"), ("/k", "'env.vars=A=5\" x'", "--", "-p")])
def test_an_end_of_the_kernels_words_that_it_does_not_find(words: tuple[str, ...]) -> None:
    """It would hand the places of its devices to the guest's program."""
    with pytest.raises(InvalidRequest, match="does not find the end of the kernel's words"):
        configuration(Machine(kernel=Path("/k"), memory=32, words=words), (1, 12))


@pytest.mark.parametrize("version", ["v1.12.0", "v1.16.1", "v2.0.0"])
async def test_a_kernel_that_reads_no_words_when_started_by_pvh(tmp_path: Path, version: str) -> None:
    """Nanos: from 1.12 on it could be told nothing."""
    deaf = Machine(kernel=SMALL.kernel, memory=32, deaf=True)
    with pytest.raises(Unsupported, match=r"by PVH.*; install Firecracker 1\.5 to 1\.11"):
        await monitor(tmp_path, version).launch(deaf)
    assert (await monitor(tmp_path, "v1.11.0").launch(deaf)).argv
