"""The engine, monitors and tools: each missing in turn, and those that do not work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from shim.config import CloudHypervisor, Config, Firecracker, Hvt, Monitors, Qemu, Spt
from shim.doctor import programs
from shim.doctor.finding import Outcome
from shim.doctor.programs import Program, Tool
from shim.errors import NodeFault
from shim.monitors.acceleration import MEMORY, Acceleration

CRUN = Program(name="crun", path="/usr/bin/crun", version="1.8")
RUNC = Program(name="runc", path="/usr/bin/runc", version="1.1")
QEMU = Program(name="qemu", path="/usr/bin/qemu", version="7.2")
HVT = Program(name="hvt", path="/usr/bin/solo5-hvt", version="0.9.3", kvm=True)


def refusing(name: str) -> Program:
    return Program(name=name, path=f"/usr/bin/{name}", refusal="no cgroups for it")


@pytest.mark.parametrize(
    ("engines", "outcomes"),
    [
        ([CRUN, RUNC], [Outcome.GOOD, Outcome.GOOD]),
        ([Program(name="crun"), RUNC], [Outcome.ABSENT, Outcome.GOOD]),
        ([refusing("crun"), RUNC], [Outcome.ABSENT, Outcome.GOOD]),
        ([CRUN, Program(name="runc")], [Outcome.GOOD, Outcome.ABSENT]),
        ([Program(name="crun"), Program(name="runc")], [Outcome.BAD, Outcome.BAD]),
        ([refusing("crun"), Program(name="runc")], [Outcome.BAD, Outcome.BAD]),
    ],
)
def test_one_engine_will_do(engines: list[Program], outcomes: list[Outcome]) -> None:
    found = programs.judge_engines("auto", engines, tried=True)
    assert [each.outcome for each in found] == outcomes
    assert all(each.fix for each in found if each.outcome is Outcome.BAD)
    assert [each.subject for each in found if "this one is taken" in each.what] == [
        each.name for each in engines if each.works
    ][:1]


def test_an_engine_that_is_demanded() -> None:
    (found,) = programs.judge_engines("/opt/youki", [Program(name="/opt/youki")], tried=True)
    assert found.outcome is Outcome.BAD and "engine.path" in found.fix


def test_an_engine_that_only_root_could_try() -> None:
    assert [each.outcome for each in programs.judge_engines("auto", [CRUN], tried=False)] == [Outcome.UNSEEN]


@pytest.mark.parametrize(
    ("seen", "kvm", "outcomes"),
    [
        ((QEMU, Program(name="spt")), False, [Outcome.GOOD, Outcome.ABSENT]),
        ((Program(name="qemu"), Program(name="spt")), True, [Outcome.BAD, Outcome.BAD]),
        ((Program(name="qemu"), HVT), True, [Outcome.ABSENT, Outcome.GOOD]),
        ((Program(name="qemu"), HVT), False, [Outcome.BAD, Outcome.BAD]),
        ((QEMU, HVT), False, [Outcome.GOOD, Outcome.DOUBTFUL]),
        ((QEMU, refusing("firecracker")), True, [Outcome.GOOD, Outcome.DOUBTFUL]),
        ((refusing("qemu"), Program(name="spt")), True, [Outcome.BAD, Outcome.BAD]),
    ],
)
def test_one_monitor_must_work(seen: tuple[Program, ...], kvm: bool, outcomes: list[Outcome]) -> None:
    found = programs.judge_monitors(programs.Monitors(programs=seen), kvm)
    assert [each.outcome for each in found] == outcomes
    assert all(each.why for each in found if each.outcome is not Outcome.GOOD)


def test_what_qemu_runs_under_is_told() -> None:
    (found,) = programs.judge_monitors(
        programs.Monitors(programs=(QEMU,), acceleration=Acceleration(accel="tcg")), kvm=True
    )
    assert found.what.endswith("guests run under TCG")


def test_a_tool_is_missed_by_its_formats() -> None:
    there = Tool(name="mke2fs", package="e2fsprogs", formats=("ext2", "ext4"), path="/sbin/mke2fs")
    gone = Tool(name="xorriso", package="xorriso", formats=("iso9660",))
    found = programs.judge_tools([there, gone])
    assert [each.outcome for each in found] == [Outcome.GOOD, Outcome.ABSENT]
    assert found[1].fix == "apt-get install xorriso" and "iso9660" in found[1].why


def script(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return os.fspath(path)


def no_program(directory: Path) -> Path:
    """A file that may be run, and cannot be."""
    path = directory / "noise"
    path.write_bytes(b"\0\1\2")
    path.chmod(0o755)
    return path


async def test_monitors_are_asked_for_their_versions(tmp_path: Path) -> None:
    """What a program may answer: a version, too old a one, nonsense, nothing, and that it cannot start."""
    noise = no_program(tmp_path)
    settings = Monitors(
        spt=Spt(path=script(tmp_path, "spt", "echo solo5-spt version v0.9.3")),
        hvt=Hvt(path=script(tmp_path, "hvt", "echo no library >&2; exit 127")),
        qemu=Qemu(path=os.fspath(tmp_path / "none")),
        firecracker=Firecracker(path=script(tmp_path, "firecracker", "echo Firecracker v1.0.0")),
        cloud_hypervisor=CloudHypervisor(path=os.fspath(noise)),
    )
    async with programs.bench() as bench:
        seen = await programs.try_monitors(Config(run_dir=tmp_path / "run", monitors=settings), bench)
        directory = bench.directory
    found = {each.name: each for each in seen.programs}
    assert found["spt"].works and found["spt"].version == "0.9.3" and not found["spt"].kvm
    assert "no library" in found["hvt"].refusal and "too old" in found["firecracker"].refusal
    assert found["cloud-hypervisor"].path == os.fspath(noise)
    assert found["cloud-hypervisor"].refusal == os.strerror(errno.ENOEXEC)
    assert not found["qemu"].path and seen.acceleration is None
    assert not directory.exists()


async def test_where_there_is_no_place_for_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", os.fspath(tmp_path / "neither"))
    with pytest.raises(NodeFault, match="no place for trials"):
        async with programs.bench():
            pass


async def test_what_the_daemon_found_out_is_not_found_out_again(tmp_path: Path) -> None:
    (tmp_path / MEMORY).write_text("what it found")
    async with programs.bench() as bench:
        await programs.try_monitors(Config(run_dir=tmp_path, monitors=Monitors(qemu=Qemu(path="/none"))), bench)
        assert (bench.directory / MEMORY).read_text() == "what it found"


async def test_an_engine_that_says_nothing_sensible(tmp_path: Path) -> None:
    noise = no_program(tmp_path)
    async with programs.bench() as bench:
        (strange,) = await programs.try_engines(os.fspath(noise), bench)
        (gone,) = await programs.try_engines(os.fspath(tmp_path / "none"), bench)
        (broken,) = await programs.try_engines(script(tmp_path, "engine", "exit 3"), bench)
    assert not gone.path and "exit status 3" in broken.refusal and strange.refusal == os.strerror(errno.ENOEXEC)


async def test_tools_are_told_with_all_their_formats() -> None:
    async with programs.bench() as bench:
        found = {each.name: each.formats for each in programs.find_tools(bench)}
    assert found == {
        "xorriso": ("iso9660",),
        "mke2fs": ("ext2", "ext4"),
        "mksquashfs": ("squashfs",),
        "mkfs.erofs": ("erofs",),
    }
