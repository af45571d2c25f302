"""The whole look: what is observed at once, and what is judged of it in the order of what follows from what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from shim.config import Config
from shim.doctor import (
    cluster,
    containerd,
    containerd_config,
    containerd_settings,
    devices,
    directories,
    kernel,
    programs,
    service,
    trial,
)
from shim.doctor.finding import Area, Finding, Outcome, in_order, words
from shim.doctor.stanzas import BY_COURIER
from shim.errors import ShimError
from shim.threads import in_new_thread

T = TypeVar("T")

#: Seconds for any one look. The longest is QEMU's probe guest, twice 4 s where it hangs.
_PATIENCE = 10.0


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look: the service's configuration, containerd's address and its configuration, each None for the usual
    place."""

    config: Path | None = None
    containerd: Path | None = None
    containerd_config: Path | None = None


class Failed(msgspec.Struct, frozen=True):
    """A look that came to nothing, for a reason of its own."""

    finding: Finding


async def examine(scope: Scope) -> list[Finding]:
    """Everything, in order. Raises nothing for what is missing."""
    found, said = service.read(scope.config)
    async with programs.bench() as bench:
        seen = await _observe(scope, found, bench)
    return in_order([said, *_judge(seen, found, os.geteuid() == 0)])


class _Containerd(msgspec.Struct, frozen=True, kw_only=True):
    """containerd, what its files come to, and the shim binary that it would run."""

    seen: containerd.Containerd
    settings: containerd_settings.Settings
    courier: containerd_config.Courier


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed, each in its turn or the reason why not."""

    kernel: kernel.Kernel | Failed
    trial: trial.Trial | Failed
    devices: devices.Devices | Failed
    engines: tuple[programs.Program, ...] | Failed
    monitors: programs.Monitors | Failed
    tools: tuple[programs.Tool, ...] | Failed
    run_dir: directories.Directory | Failed
    storage: directories.Directory | Failed
    service: service.Service | Failed
    containerd: _Containerd | Failed
    cluster: cluster.Cluster | Failed


async def _observe(scope: Scope, found: Config, bench: programs.Bench) -> _Seen:
    """All at once: most of it is waiting for others."""
    run_dir, storage = found.run_dir, found.storage.directory
    async with asyncio.TaskGroup() as group:

        def look(area: Area, subject: str, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T | Failed]:
            return group.create_task(_look(area, subject, work))

        of_kernel = look(Area.KERNEL, "kernel", _blocking(kernel.observe))
        of_trial = look(Area.KERNEL, "network", _blocking(trial.attempt))
        of_devices = look(Area.DEVICES, "devices", _blocking(devices.observe))
        of_engines = look(Area.ENGINE, "engine", lambda: programs.try_engines(found.engine.path, bench))
        of_monitors = look(Area.MONITORS, "monitors", lambda: programs.try_monitors(found, bench))
        of_tools = look(Area.STORAGE, "tools", _blocking(lambda: programs.find_tools(bench)))
        of_run_dir = look(Area.STORAGE, os.fspath(run_dir), _blocking(lambda: directories.observe(run_dir)))
        of_storage = look(Area.STORAGE, os.fspath(storage), _blocking(lambda: directories.observe(storage)))
        of_service = look(Area.SERVICE, "daemon", lambda: service.observe(found))
        of_containerd = look(Area.CONTAINERD, "containerd", lambda: _containerd(scope, found, bench))
        of_cluster = look(Area.CLUSTER, "RuntimeClass", lambda: cluster.observe(bench.run))
    return _Seen(
        kernel=of_kernel.result(),
        trial=of_trial.result(),
        devices=of_devices.result(),
        engines=of_engines.result(),
        monitors=of_monitors.result(),
        tools=of_tools.result(),
        run_dir=of_run_dir.result(),
        storage=of_storage.result(),
        service=of_service.result(),
        containerd=of_containerd.result(),
        cluster=of_cluster.result(),
    )


async def _containerd(scope: Scope, found: Config, bench: programs.Bench) -> _Containerd:
    seen = await containerd.observe(scope.containerd or _socket(found.containerd.address), bench.run)
    main = scope.containerd_config or seen.config

    def files() -> _Containerd:
        sources = containerd.read(main, seen.line)
        line = seen.line if seen.line != (0, 0) else containerd_settings.guess(sources)
        settings = containerd_settings.settle(sources, line)
        return _Containerd(seen=seen, settings=settings, courier=containerd.find_courier(seen, settings))

    return await in_new_thread(files, name="doctor")


def _socket(address: str) -> Path:
    return Path(address.removeprefix("unix://"))


def _judge(seen: _Seen, found: Config, root: bool) -> list[Finding]:
    """What is known of one thing decides how another is taken; where that is not known, the other is left out."""
    findings = [look.finding for look in msgspec.structs.astuple(seen) if isinstance(look, Failed)]
    guests = programs.Monitors(programs=()) if isinstance(seen.monitors, Failed) else seen.monitors
    if not isinstance(seen.kernel, Failed) and not isinstance(seen.trial, Failed):
        findings += kernel.judge(seen.kernel, seen.trial, found.network.dataplane)
        if not isinstance(seen.devices, Failed):
            findings += devices.judge(seen.devices, seen.kernel, seen.trial, guests)
    if not isinstance(seen.engines, Failed):
        findings += programs.judge_engines(found.engine.path, seen.engines, tried=root)
    if not isinstance(seen.monitors, Failed):
        kvm = not isinstance(seen.devices, Failed) and not seen.devices.kvm
        findings += programs.judge_monitors(seen.monitors, kvm)
    if not isinstance(seen.run_dir, Failed):
        findings.append(directories.judge_run(seen.run_dir, found, root))
    if not isinstance(seen.storage, Failed):
        findings.append(directories.judge_storage(seen.storage, found, root))
    if not isinstance(seen.tools, Failed):
        findings += programs.judge_tools(seen.tools)
    return [*findings, *_judge_callers(seen, found)]


def _judge_callers(seen: _Seen, found: Config) -> list[Finding]:
    """The service, containerd that calls it, and the cluster that calls containerd."""
    findings: list[Finding] = []
    working: dict[str, str] = {}
    if not isinstance(seen.containerd, Failed):
        about, settings, courier = seen.containerd.seen, seen.containerd.settings, seen.containerd.courier
        working = containerd_config.working(settings, found.grpc_socket, courier)
        couriers = any(each in BY_COURIER for each in containerd_settings.sandboxers(settings))
        findings += containerd.judge(about, courier, found.run_dir, couriers)
        findings += containerd_config.judge(settings, found.grpc_socket, courier)
    if not isinstance(seen.service, Failed):
        demanded = not working or any(each not in BY_COURIER for each in working.values())
        findings += service.judge(seen.service, demanded)
    if not isinstance(seen.cluster, Failed):
        findings += cluster.judge(seen.cluster, working)
    return findings


def _blocking(work: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """In a thread of its own, which nobody waits for at the end: a dead file system keeps it for good."""
    return lambda: in_new_thread(work, name="doctor")


async def _look(area: Area, subject: str, work: Callable[[], Awaitable[T]]) -> T | Failed:
    """What `work` finds. What goes wrong in the looking itself says nothing of the node, and is a finding."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await work()
    except TimeoutError:
        reason = f"this took more than {_PATIENCE:g} s"
    except (ShimError, OSError) as error:
        reason = words(error)
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: {error}"
    return Failed(
        Finding(area=area, subject=subject, outcome=Outcome.DOUBTFUL, what=f"could not be found out: {reason}")
    )
