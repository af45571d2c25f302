"""The programs that pods run with: the engine, by starting a container; monitors, by their versions and a machine
planned; the tools of file systems."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from shim.config import Config
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen, words
from shim.errors import NodeFault, ShimError
from shim.monitors import version
from shim.monitors.acceleration import KVM, MEMORY, Acceleration
from shim.monitors.base import Machine, Monitor, Run
from shim.monitors.binary import NotInstalled
from shim.monitors.qemu import Qemu
from shim.monitors.registry import monitors
from shim.oci import engine
from shim.oci.engine import Limits
from shim.process.reaper import Reaper
from shim.process.spawn import run
from shim.storage.filesystems.registry import FORMATS, file_system
from shim.storage.tools import Tools

#: What is planned to see whether a monitor can: it is not run.
_MACHINE = Machine(kernel=Path("/unikernel/kernel"), memory=64)
#: Debian's packages, of the one monitor that it has.
_PACKAGES = {"qemu": "qemu-system-arm" if os.uname().machine == "aarch64" else "qemu-system-x86"}
#: What a bench's directory is called, up to a random part.
BENCH = "unikernel-shim-doctor."
# A tmpfs that every user may write to (shm_overview(7)).
_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of a random name, mode 0700, is made in it
_AGAIN = "install it again"
_ENGINE_TIMEOUT = 5.0  # seconds; a throw-away container takes a hundredth of that


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One program: `path` is "" where it is not installed, `refusal` why it does not work here, "" where it does;
    `remedy` what to do about that; `kvm` whether it runs nothing without KVM."""

    name: str
    path: str = ""
    version: str = ""
    refusal: str = ""
    remedy: str = ""
    kvm: bool = False

    @property
    def works(self) -> bool:
        """Whether it is there, and does what it is for."""
        return bool(self.path) and not self.refusal


class Monitors(msgspec.Struct, frozen=True, kw_only=True):
    """Every monitor. `accel` is what QEMU is told to use, `acceleration` what its probe guest found, None where none
    was run."""

    programs: tuple[Program, ...]
    accel: str = "auto"
    acceleration: Acceleration | None = None

    @property
    def needing_kvm(self) -> tuple[str, ...]:
        """Those here that run under KVM alone."""
        return tuple(each.name for each in self.programs if each.path and each.kvm)


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A program that makes file systems: of which formats, in which package, and where it is, "" for nowhere."""

    name: str
    package: str
    formats: tuple[str, ...]
    path: str = ""


class Bench:
    """What programs are run with: the daemon's own way to run them, and a directory that is removed."""

    def __init__(self, reaper: Reaper, directory: Path) -> None:
        self.reaper = reaper
        self.directory = directory
        self.run: Run = functools.partial(run, reaper)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A bench, gone again afterwards. Raises NodeFault where there is no room for its directory."""
    reaper = Reaper()
    try:
        # In memory where that can be had: a disk that is full shall not keep anybody from being told of it.
        place = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
        directory = tempfile.TemporaryDirectory(prefix=BENCH, dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        raise NodeFault(
            f"there is no place for trials: {words(error)}", subject="TMPDIR", remedy="name a directory to write to"
        ) from error
    with directory:
        reaper.start()
        try:
            yield Bench(reaper, Path(directory.name))
        finally:
            reaper.stop()


async def try_engines(wanted: str, bench: Bench) -> tuple[Program, ...]:
    """Start and remove a container with each engine that the daemon would look at, in its order."""
    return tuple([await _try_engine(name, bench) for name in engine.candidates(wanted)])


async def _try_engine(name: str, bench: Bench) -> Program:
    found = await asyncio.to_thread(shutil.which, name)
    if found is None:
        return Program(name=name)
    logs = bench.directory / f"engine-{Path(found).name}"
    await asyncio.to_thread(logs.mkdir, exist_ok=True)
    said, refusal = "", ""
    try:
        said = _first_version(await version.says(Path(found), "the engine", bench.run))
        limits = Limits(timeout=_ENGINE_TIMEOUT, parallel=1)
        # By name it is found, and not tried.
        used = await engine.find(bench.reaper, found, bench.directory / "root" / Path(found).name, logs, limits)
        if os.geteuid() == 0:
            await engine.try_out(used, logs)
    except (ShimError, OSError) as error:  # also what is no program, although it may be run as one
        refusal = words(error)
    return Program(name=name, path=found, version=said, refusal=refusal)


def _first_version(text: str) -> str:
    """The version in a program's own words, with what follows the minor; its first line where it names none."""
    line = text.strip().partition("\n")[0]
    if version.parse(text) is None:
        return line
    return next(word.lstrip("v").rstrip(",") for word in text.split() if version.parse(word))


async def try_monitors(config: Config, bench: Bench) -> Monitors:
    """Have each monitor plan a machine, which asks its program for its version, and QEMU to run a guest."""
    # What the daemon found out holds for us, and a guest that hangs takes seconds.
    with contextlib.suppress(OSError):
        await asyncio.to_thread(shutil.copyfile, config.run_dir / MEMORY, bench.directory / MEMORY)
    every = monitors(config.monitors, bench.run, bench.directory)
    programs = await asyncio.gather(*(_try_monitor(monitor, bench) for monitor in every.values()))
    qemu, program = every["qemu"], next(each for each in programs if each.name == "qemu")
    acceleration = None
    if isinstance(qemu, Qemu) and program.works:
        acceleration = await qemu.acceleration(Path(program.path))
    return Monitors(programs=tuple(programs), accel=config.monitors.qemu.accel, acceleration=acceleration)


async def _try_monitor(monitor: Monitor, bench: Bench) -> Program:
    try:
        await monitor.attaches_by_name()
        launch = await monitor.launch(_MACHINE)
        said = _first_version(await version.says(Path(launch.argv[0]), monitor.name, bench.run))
    except NotInstalled as error:
        return Program(name=monitor.name, remedy=error.remedy)
    except ShimError as error:
        return Program(name=monitor.name, path=error.subject, refusal=words(error), remedy=error.remedy)
    except OSError as error:  # what is no program, although it may be run as one
        return Program(name=monitor.name, path=error.filename or monitor.name, refusal=words(error), remedy=_AGAIN)
    kvm = KVM in launch.devices and not isinstance(monitor, Qemu)
    return Program(name=monitor.name, path=launch.argv[0], version=said, kvm=kvm)


def find_tools(bench: Bench) -> tuple[Tool, ...]:
    """Look for what makes each format that is not our own; blocks."""
    places = Tools(functools.partial(run, bench.reaper))
    found: dict[str, Tool] = {}
    for kind in map(file_system, FORMATS):
        if not kind.program:
            continue
        formats = (*(found[kind.program].formats if kind.program in found else ()), kind.name)
        try:
            path = os.fspath(places.locate(kind.program, kind.package))
        except NodeFault:
            path = ""
        found[kind.program] = Tool(name=kind.program, package=kind.package, formats=formats, path=path)
    return tuple(found.values())


def judge_engines(wanted: str, engines: Sequence[Program], tried: bool) -> list[Finding]:
    """The first that works is the daemon's; `tried` is whether a container was started."""
    taken = next((each for each in engines if each.works), None)
    return [_engine(each, each is taken, taken, wanted, tried) for each in engines]


def _engine(program: Program, taken: bool, other: Program | None, wanted: str, tried: bool) -> Finding:
    def finding(outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
        return Finding(area=Area.ENGINE, subject=program.name, outcome=outcome, what=what, why=why, fix=fix)

    install = f"apt-get install {program.name}" if wanted == "auto" else "correct engine.path in the configuration"
    why = "nothing can be started in a pod without an OCI runtime" if other is None else f"{other.name} is taken"
    if not program.path:
        missing = "not installed" if wanted == "auto" else "there is no such program"
        return finding(Outcome.BAD if other is None else Outcome.ABSENT, missing, why, install if other is None else "")
    about = f"{program.version or 'it'}, {program.path}"
    if program.refusal:
        fix = "install the other engine: apt-get install runc crun" if wanted == "auto" else "set engine.path to auto"
        if other is not None:
            return finding(Outcome.ABSENT, f"{about}: starts no container here: {program.refusal}", why)
        return finding(Outcome.BAD, f"{about}: starts no container here: {program.refusal}", why, fix)
    if not tried:
        return unseen(Area.ENGINE, program.name, f"{about}: whether it starts a container, root alone can try", AS_ROOT)
    return finding(Outcome.GOOD, f"{about}: a container was started{' (this one is taken)' if taken else ''}")


def judge_monitors(seen: Monitors, kvm: bool) -> list[Finding]:
    """`kvm` is whether a machine can be made."""
    running = [each for each in seen.programs if each.works and (kvm or not each.kvm)]
    findings = [_monitor(each, kvm, bool(running)) for each in seen.programs]
    qemu = seen.acceleration
    if qemu is not None:
        findings = [_with_accelerator(each, qemu) if each.subject == "qemu" else each for each in findings]
    return findings


def _monitor(program: Program, kvm: bool, others: bool) -> Finding:
    def finding(outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
        return Finding(area=Area.MONITORS, subject=program.name, outcome=outcome, what=what, why=why, fix=fix)

    install = f"apt-get install {_PACKAGES[program.name]}" if program.name in _PACKAGES else program.remedy
    last = "no monitor works here, so no unikernel runs"
    if not program.path:
        if others:
            why = "images whose kernel is for it cannot run"
            return finding(Outcome.ABSENT, "not installed", why, install)
        return finding(Outcome.BAD, "not installed", last, install)
    if program.refusal:
        why = "images whose kernel is for it cannot run" if others else last
        return finding(
            Outcome.DOUBTFUL if others else Outcome.BAD, f"{program.path}: {program.refusal}", why, program.remedy
        )
    about = f"{program.version}, {program.path}"
    if program.kvm and not kvm:
        why = f"it runs under KVM alone, which does not work here{'' if others else f'; {last}'}"
        return finding(Outcome.DOUBTFUL if others else Outcome.BAD, about, why, f"see {KVM}")
    return finding(Outcome.GOOD, about)


def _with_accelerator(finding: Finding, acceleration: Acceleration) -> Finding:
    under = "KVM" if acceleration.accel == "kvm" else "TCG"
    return msgspec.structs.replace(finding, what=f"{finding.what}: guests run under {under}")


def judge_tools(tools: Sequence[Tool]) -> list[Finding]:
    """A format is needed by those images alone that ask for it."""
    return [_tool(each) for each in tools]


def _tool(tool: Tool) -> Finding:
    formats = ", ".join(tool.formats)
    if tool.path:
        return Finding(area=Area.STORAGE, subject=tool.name, outcome=Outcome.GOOD, what=f"{tool.path} makes {formats}")
    return Finding(
        area=Area.STORAGE,
        subject=tool.name,
        outcome=Outcome.ABSENT,
        what="not installed",
        why=f"guests whose root or volumes are made into {formats} cannot start",
        fix=f"apt-get install {tool.package}",
    )
