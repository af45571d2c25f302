"""The OCI runtime (crun, else runc) that confines what we run: cgroups, namespaces, users, seccomp, devices."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from shim import log
from shim.errors import NodeFault, NotFound, Unexpected
from shim.process.reaper import Reaper
from shim.process.spawn import Completed, run

_log = log.get(__name__)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`timeout` is how long one run may take, in seconds: a hung engine must not hold a pod's turn for ever. `parallel`
    is how many may start something at once; signals and removals wait for nobody."""

    timeout: float
    parallel: int


class _LogLine(msgspec.Struct):
    level: str = ""
    msg: str = ""


def last_error(text: bytes) -> str:
    """The last error of an engine's JSON log, or its last line where it is not JSON."""
    found = ""
    for line in text.splitlines():
        try:
            entry = msgspec.json.decode(line, type=_LogLine)
        except msgspec.DecodeError:
            continue
        if entry.level in ("error", "fatal"):
            found = entry.msg.strip()
    lines = text.strip().splitlines()
    return found or (lines[-1].decode(errors="replace") if lines else "")


def uses_systemd(cgroups_path: str) -> bool:
    """Whether a spec's cgroupsPath is the systemd driver's form, `slice:prefix:name` (runc, docs/systemd.md)."""
    return cgroups_path.count(":") == 2 and not cgroups_path.startswith("/")


class Engine:
    """One engine binary with its state directory.

    Every call raises Unexpected with the engine's own words when the engine refuses, as containerd's runc shim does,
    and TimedOut when it hangs.
    """

    def __init__(
        self,
        reaper: Reaper,
        binary: str,
        root: Path,
        logs: Path,
        limits: Limits,
        *,
        prefix: str = "",
        gate: asyncio.Semaphore | None = None,
    ) -> None:
        """`gate` is what bounds how many start at once, shared with another engine object; a new one by default."""
        self._reaper = reaper
        self._limits = limits
        self._gate = gate or asyncio.Semaphore(limits.parallel)
        self.binary = binary
        self.root = root
        self._logs = logs
        self._prefix = prefix

    def within(self, namespace: str) -> Engine:
        """The same engine for one containerd namespace: two of them may use one container id."""
        root, prefix = self.root / namespace, f"{namespace}@"
        return Engine(self._reaper, self.binary, root, self._logs, self._limits, prefix=prefix, gate=self._gate)

    def _scratch(self, name: str) -> Path:
        """A file for the length of one call."""
        return self._logs / f"{self._prefix}{name}"

    async def create(
        self,
        container: str,
        bundle: Path,
        *,
        fds: Mapping[int, int],
        console: Path | None = None,
        systemd: bool = False,
    ) -> int:
        """Create a container, its init blocked before the program; returns init's pid.

        `fds` are the standard streams, and from 3 on what the program is handed.
        """
        pidfile = self._scratch(f"{container}.pid")
        arguments = ["create", "--bundle", os.fspath(bundle), "--pid-file", os.fspath(pidfile)]
        if console is not None:
            arguments += ["--console-socket", os.fspath(console)]
        if extra := len([number for number in fds if number > 2]):
            arguments += ["--preserve-fds", str(extra)]
        try:
            async with self._gate:
                try:
                    await self._call(container, [*arguments, container], fds=fds, systemd=systemd)
                except Unexpected as error:
                    if "already exists" not in str(error):
                        raise
                    # Of a container that was deleted on a disk which was read-only then: nobody else uses this root.
                    await self.delete(container, force=True)
                    await self._call(container, [*arguments, container], fds=fds, systemd=systemd)
            return int(pidfile.read_text())
        except (OSError, ValueError) as error:
            raise NodeFault(f"the engine left no usable pid file: {error}", subject=container) from error
        finally:
            _discard(pidfile)

    def awaits_start(self, container: str) -> bool:
        """Whether the container's process waits for its start: until then runc and crun keep the FIFO that it waits at
        (runc, libcontainer/container_linux.go, execFifoFilename; crun, src/libcrun/container.c); blocks."""
        return (self.root / container / "exec.fifo").exists()

    async def start(self, container: str) -> None:
        """Let the container's program run."""
        async with self._gate:
            await self._call(container, ["start", container])

    async def exec(
        self,
        container: str,
        name: str,
        process: bytes,
        *,
        fds: Mapping[int, int],
        console: Path | None = None,
    ) -> int:
        """Run another process in the container; `process` is an OCI process as JSON; returns its pid."""
        pidfile = self._scratch(f"{container}.{name}.pid")
        spec = self._scratch(f"{container}.{name}.json")
        _write(spec, process)
        arguments = ["exec", "--detach", "--process", os.fspath(spec), "--pid-file", os.fspath(pidfile)]
        if console is not None:
            arguments += ["--console-socket", os.fspath(console)]
        try:
            async with self._gate:
                await self._call(container, [*arguments, container], fds=fds, log_name=f"{container}.{name}")
            return int(pidfile.read_text())
        except (OSError, ValueError) as error:
            raise NodeFault(f"the engine left no usable pid file: {error}", subject=name) from error
        finally:
            _discard(spec)
            _discard(pidfile)

    async def kill(self, container: str, signum: int, *, everyone: bool = False) -> None:
        """Signal the container's init, or every process in its cgroup. Raises NotFound once it has finished."""
        arguments = ["kill", *(["--all"] if everyone else []), container, str(signum)]
        try:
            await self._call(container, arguments)
        except Unexpected as error:
            text = str(error).lower()
            # The engines have no exit codes for these; runc's shim matches the same words.
            if "not running" in text or "no such process" in text or "does not exist" in text:
                raise NotFound("process already finished", subject=container) from error
            raise

    async def delete(self, container: str, *, force: bool = False) -> None:
        """Remove a container and its cgroups; `force` kills first. Harmless when the engine knows of none."""
        try:
            await self._call(container, ["delete", *(["--force"] if force else []), container])
        except Unexpected as error:
            if "does not exist" not in str(error).lower():
                raise

    async def pause(self, container: str) -> None:
        """Freeze every process of the container."""
        await self._call(container, ["pause", container])

    async def resume(self, container: str) -> None:
        """Thaw the container."""
        await self._call(container, ["resume", container])

    async def update(self, container: str, resources: bytes) -> None:
        """Change the container's limits; `resources` is an OCI LinuxResources object as JSON."""
        path = self._scratch(f"{container}.resources.json")
        _write(path, resources)
        try:
            await self._call(container, ["update", "--resources", os.fspath(path), container])
        finally:
            _discard(path)

    async def _call(
        self,
        container: str,
        arguments: Sequence[str],
        *,
        fds: Mapping[int, int] | None = None,
        systemd: bool = False,
        log_name: str = "",
    ) -> None:
        journal = self._scratch(f"{log_name or container}.{arguments[0]}.log")
        argv = [self.binary, "--root", os.fspath(self.root), "--log-format", "json"]
        if fds:
            # Where the program is given our streams they are not the engine's to complain on. Elsewhere no file is
            # needed, and an end does not depend on a disk with room for one.
            argv += ["--log", os.fspath(journal)]
        if systemd:
            argv.append("--systemd-cgroup")
        try:
            done = await run(self._reaper, [*argv, *arguments], timeout=self._limits.timeout, fds=fds, capture=not fds)
            if done.status:
                raise Unexpected(f"OCI runtime {arguments[0]} failed: {_words(journal, done)}", subject=container)
        finally:
            _discard(journal)


def _write(path: Path, data: bytes) -> None:
    """Raises NodeFault (disk full, read-only)."""
    try:
        path.write_bytes(data)
    except OSError as error:
        _discard(path)
        raise NodeFault(
            f"what the engine is to read cannot be written: {os.strerror(error.errno or 0)}",
            subject=os.fspath(path),
            remedy="free space in the run directory",
        ) from error


def _discard(path: Path) -> None:
    """Remove a file of one call. One that cannot be removed must not hide what became of the call; the next daemon does
    it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("an engine's file stays", path=os.fspath(path), error=str(error))


def _words(journal: Path, done: Completed) -> str:
    try:
        text = journal.read_bytes()
    except FileNotFoundError:
        text = b""
    return last_error(text) or last_error(done.stderr) or f"exit status {done.status}"


def candidates(wanted: str) -> tuple[str, ...]:
    """The engines to look for, in order; `wanted` is the configuration's."""
    return ("crun", "runc") if wanted == "auto" else (wanted,)


async def find(reaper: Reaper, wanted: str, root: Path, logs: Path, limits: Limits) -> Engine:
    """The engine to use: `wanted` is a name, a path, or "auto" for crun where it works here, else runc.

    crun is asked to create nothing: whether it accepts this node's cgroup layout is known only from a run of
    `crun run` of an empty container, so a throw-away bundle is tried once. Raises NodeFault naming what was looked for.
    """
    reasons: list[str] = []
    for name in candidates(wanted):
        binary = shutil.which(name)
        if binary is None:
            reasons.append(f"{name} is not installed")
            continue
        engine = Engine(reaper, binary, root / Path(binary).name, logs, limits)
        if wanted != "auto":
            return engine
        try:
            await try_out(engine, logs)
        except (Unexpected, NodeFault) as error:
            reasons.append(f"{name}: {error.message}")
            _log.info("engine does not work here", engine=binary, reason=error.message)
            continue
        return engine
    raise NodeFault(
        f"no OCI runtime works here ({'; '.join(reasons)})",
        subject=wanted,
        remedy="install crun or runc, or set engine.path",
    )


async def try_out(engine: Engine, directory: Path) -> None:
    """Create and delete one container that runs nothing; `directory` is for its bundle.

    Raises Unexpected, NodeFault or TimedOut where the engine does not take it.
    """
    bundle = directory / "probe"
    name = f"unikernel-shim-probe-{os.getpid()}"
    (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
    spec = {
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": ["/none"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "cgroupsPath": f"/{name}"},
    }
    (bundle / "config.json").write_bytes(msgspec.json.encode(spec))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        await engine.create(name, bundle, fds={0: null, 1: null, 2: null})
    except Unexpected as error:
        # crun looks for the program at create, runc at start: either has accepted the node by then.
        if "/none" not in error.message and "executable file" not in error.message:
            raise
    finally:
        os.close(null)
        await engine.delete(name, force=True)
        shutil.rmtree(bundle, ignore_errors=True)
