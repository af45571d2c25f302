"""Cloud Hypervisor: its command line, what its version decides, and its power button."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.config import CloudHypervisor as Settings
from shim.errors import InvalidRequest, NodeFault, Unreachable, Unsupported
from shim.monitors.base import Disk, Machine
from shim.monitors.cloud_hypervisor import CloudHypervisor, arguments
from shim.process.spawn import Completed
from tests.unit.monitors import golden
from tests.unit.monitors.fake import FakeRun, program
from tests.unit.monitors.machines import LARGE, SMALL

_NEW = (52, 0)


def says(version: str) -> FakeRun:
    text = f"cloud-hypervisor {version}\nMigration Protocol Versions: 1\n".encode()
    return FakeRun(lambda argv: Completed(0, text, b""))


def monitor(directory: Path, version: str = "v52.0") -> CloudHypervisor:
    return CloudHypervisor(Settings(path=os.fspath(program(directory, "cloud-hypervisor"))), says(version))


@pytest.mark.parametrize(("name", "machine"), [("small", SMALL), ("large", LARGE)])
def test_the_command_line_is_as_before(name: str, machine: Machine) -> None:
    found = arguments(Path("/usr/bin/cloud-hypervisor"), machine, _NEW)
    golden.check(f"cloud-hypervisor-{name}.txt", "".join(f"{argument}\n" for argument in found))


async def test_the_launch(tmp_path: Path) -> None:
    launch = await monitor(tmp_path).launch(LARGE)
    path = tmp_path / "cloud-hypervisor"
    assert launch.argv == arguments(path, LARGE, _NEW)
    assert launch.devices == (Path("/dev/kvm"),)
    assert path in launch.shares
    assert not launch.by_name
    assert not launch.in_pod
    assert launch.files == {}


@pytest.mark.parametrize(("version", "in_pod"), [("v51.2", True), ("v39.0", True), ("v52.0", False), ("60.1", False)])
async def test_older_ones_ask_for_the_taps_mtu_in_its_namespace(tmp_path: Path, version: str, in_pod: bool) -> None:
    machine = Machine(kernel=LARGE.kernel, memory=64, nics=LARGE.nics)
    assert (await monitor(tmp_path, version).launch(machine)).in_pod is in_pod
    assert not (await monitor(tmp_path, version).launch(SMALL)).in_pod


@pytest.mark.parametrize("version", ["v38.0", "v0.15.0"])
async def test_one_that_is_too_old(tmp_path: Path, version: str) -> None:
    with pytest.raises(NodeFault, match=r"cloud-hypervisor \d+\.\d+ is too old: 39\.0 or newer"):
        await monitor(tmp_path, version).launch(SMALL)


async def test_a_disk_is_never_taken_for_what_its_content_says(tmp_path: Path) -> None:
    """A guest that writes another format's header would have its monitor open the files that it names."""
    written = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/d"), read_only=False),))
    assert "path=/d,readonly=off,image_type=raw" in (await monitor(tmp_path).launch(written)).argv
    with pytest.raises(Unsupported, match="what its content says"):
        await monitor(tmp_path, "v50.0").launch(written)
    read = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/d")),))
    assert "path=/d,readonly=on" in (await monitor(tmp_path, "v50.0").launch(read)).argv


@pytest.mark.parametrize("name", ["a,readonly=off", 'a"b', "a[b", "a]b", "a "])
def test_a_disks_name_is_no_option(name: str) -> None:
    machine = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/", name)),))
    with pytest.raises(InvalidRequest, match="no disk with such a name"):
        arguments(Path("/usr/bin/cloud-hypervisor"), machine, _NEW)


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20), max_size=8))
def test_words_arrive_as_they_are(words: list[str]) -> None:
    """One argument of the program's, which no shell reads: also a word that looks like one of its options."""
    found = arguments(Path("/bin/x"), Machine(kernel=SMALL.kernel, memory=64, words=tuple(words)), _NEW)
    (said,) = (argument for argument in found if argument.startswith("--cmdline="))
    assert said.removeprefix("--cmdline=") == " ".join(words)


async def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    for machine, kind, words in (
        (Machine(kernel=SMALL.kernel, memory=32, cpus=255), InvalidRequest, "1 to 254 processors, not 255"),
        (Machine(kernel=SMALL.kernel, memory=32, kind="microvm"), Unsupported, "microvm"),
        (Machine(kernel=SMALL.kernel, memory=32, words=("naïve",)), InvalidRequest, "ASCII"),
    ):
        with pytest.raises(kind, match=words):
            await found.launch(machine)


async def test_a_monitor_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    assert found.powerdown == 20
    assert not await found.attaches_by_name()
    assert await found.open_vhost(1) == ()
    with pytest.raises(Unreachable):
        await found.power_down(tmp_path)
