"""The service itself: reads the configuration, wires the parts, runs the loop until a signal.

One serves the node. With `grouping = "pod"` couriers start one for each pod: the same in a run directory of its own,
which ends with the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import uvloop

from shim import __version__, faults, log, rundir, telemetry
from shim.config import Config
from shim.errors import InvalidRequest, NodeFault
from shim.events import Publisher
from shim.guests.registry import guests
from shim.journal import Journal, Record, Step
from shim.lifetime import Lifetime
from shim.monitors.registry import monitors
from shim.network.kernel.namespace import all_settled
from shim.oci import engine, orphans
from shim.oci.engine import Engine, Limits
from shim.process.reaper import Reaper
from shim.process.spawn import run, seal_inherited
from shim.process.stdio import Opener
from shim.process.streaming import Rendezvous
from shim.rpc.forward import ask_version, sender
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.namespaced import NamespacedDoors
from shim.rpc.scrapes import ScrapeServer
from shim.rpc.service import Service, from_descriptor
from shim.rpc.ttrpc_server import TtrpcServer
from shim.sandbox import disks, identifiers
from shim.sandbox.adoption import adopt_all
from shim.sandbox.checks import Checker
from shim.sandbox.chronicle import Chronicle
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Occurrence
from shim.sandbox.record import ContainerRecord, SandboxRecord
from shim.sandbox.resync import present
from shim.sandbox.rounds import Rounds
from shim.sandbox.sandboxes import Sandboxes
from shim.services.announce import announcer
from shim.services.bootstrap import BootstrapService
from shim.services.controller import ControllerService
from shim.services.destinations import Destinations
from shim.services.inspection import InspectionService
from shim.services.pods import Pods
from shim.services.sandbox import SandboxService
from shim.services.streaming import StreamingService
from shim.services.task import TaskService
from shim.services.versions import Versions
from shim.storage.images import Images
from shim.systemd import activation, notification
from shim.wire import (
    courier_pb2,
    inspection_pb2,
    runtime_sandbox_v1_pb2,
    services_sandbox_v1_pb2,
    services_streaming_v1_pb2,
    task_v2_pb2,
    task_v3_pb2,
)

if TYPE_CHECKING:
    from shim.metrics import Metrics
    from shim.tracing import Collector

_log = log.get(__name__)


_UNDELIVERED = 30.0  # seconds for a containerd that is away to come back for the events of a pod that is gone
_HELD = 0.2  # seconds to the next attempt to end, where a courier is about to ask for something


async def make_node(config: Config, announce: Callable[[Occurrence], None], memory: Path | None = None) -> Node:
    """Everything sandboxes work with, on the running loop. `memory` is a directory for what is found out of the
    machine, by default the run directory. Raises NodeFault where the node lacks something."""
    rundir.make(config.run_dir)
    seal_inherited()
    step = faults.from_environment()
    reaper = Reaper()
    reaper.start()
    journal = _journal(config.run_dir / "journal", ContainerRecord, step)
    pods = _journal(config.run_dir / "journal" / "pods", SandboxRecord, step)
    tools = functools.partial(run, reaper)
    images = Images(config.storage.directory / "images", tools, config.storage.limit << 20)
    return Node(
        config=config,
        reaper=reaper,
        stdio=Opener(reaper, Rendezvous(config.run_dir / "streams")),
        engine=await _engine(config, reaper),
        journal=journal,
        pods=pods,
        guests=guests(),
        monitors=monitors(config.monitors, tools, memory or config.run_dir),
        images=images,
        images_in=images.beside,
        disks=disks.of_boot(config.storage.directory),
        announce=announce,
    )


def _journal(directory: Path, kind: type[Record], step: Step | None) -> Journal[Record]:
    journal = Journal(directory, kind) if step is None else Journal(directory, kind, step)
    journal.open()
    return journal


async def _engine(config: Config, reaper: Reaper) -> Engine:
    """The engine that works here, once those are gone that a former daemon left running."""
    root = config.run_dir / "engine"
    await orphans.ended(root, config.engine.timeout)
    limits = Limits(timeout=config.engine.timeout, parallel=config.engine.parallel or 2 * (os.cpu_count() or 1))
    return await engine.find(reaper, config.engine.path, root, root / "calls", limits)


def serve(config: Config, pod: str | None = None) -> None:
    """Run the node's daemon until SIGTERM or SIGINT; or that of `pod`, NAMESPACE/ID, until the pod is gone.

    `/` is no pod: that one answers what concerns none. Raises NodeFault when it cannot start, InvalidRequest for what
    is not a pod.
    """
    as_json = {"auto": None, "json": True, "text": False}[config.log.format]
    namespace, sandbox = _parts(pod) if pod is not None else ("", "")
    ids = {"sandbox": sandbox, "namespace": namespace} if pod is not None else {}
    log.configure(config.log.level, json=as_json, ids=ids)
    manager = notification.from_environment(os.environ, os.getpid())
    given = activation.take(os.environ, os.getpid(), (config.grpc_socket, config.ttrpc_socket))
    uvloop.run(_serve(config, manager, given) if pod is None else _serve_pod(config, pod, namespace))


def _parts(pod: str) -> tuple[str, str]:
    namespace, slash, sandbox = pod.partition("/")
    if not slash:
        raise InvalidRequest("not a pod", subject=repr(pod), remedy="give NAMESPACE/ID")
    if pod != slash:
        identifiers.check(namespace, "namespace")
        identifiers.check(sandbox, "sandbox id")
    return namespace, sandbox


def _stopping() -> asyncio.Event:
    """Set by the signals that end a daemon."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    return stopping


async def _serve(config: Config, manager: notification.Notifier | None, given: Mapping[Path, socket.socket]) -> None:
    stopping = _stopping()
    async with (
        rundir.of_node(config.run_dir),
        _measured(config) as metrics,
        _serving(config, metrics, given=given) as running,
        notification.told(manager, lambda: f"serving {len(running.sandboxes.all())} pods"),
    ):
        await stopping.wait()
        _log.info("stopping", sandboxes=len(running.sandboxes.all()))


async def _serve_pod(node: Config, pod: str, namespace: str) -> None:
    stopping = _stopping()
    config = node.within(pod)
    async with (
        rundir.of_pod(config.run_dir, pod) as directory,
        _measured(config, pod) as metrics,
        _serving(config, metrics, _Pod(namespace, node.run_dir)) as running,
    ):
        gone = asyncio.ensure_future(_gone(running, directory))
        gone.add_done_callback(lambda _: stopping.set())
        await stopping.wait()
        _log.info("stopping", sandboxes=len(running.sandboxes.all()))
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _gone(running: _Running, directory: rundir.PodDirectory) -> None:
    """Return when the pod is gone, all is told, and nobody can ask this daemon for anything any more."""
    assert running.doors.lifetime is not None
    while True:
        await running.doors.lifetime.over()
        await running.publisher.flush(_UNDELIVERED)
        if directory.hold():
            if running.doors.lifetime.left == 0:
                # Nothing else runs before calls are refused: a courier gets an answer that holds, or asks the next.
                await running.doors.ttrpc.stop(_HELD)
                return
            directory.let_go()
        await asyncio.sleep(_HELD)


@dataclass(frozen=True, slots=True)
class _Pod:
    """What the daemon of one pod knows of it: its containerd namespace, and the run directory of the node."""

    namespace: str
    node_dir: Path


@dataclass(frozen=True, slots=True)
class _Running:
    """A daemon that serves."""

    sandboxes: Sandboxes
    publisher: Publisher
    doors: _Doors


@contextlib.asynccontextmanager
async def _measured(config: Config, pod: str | None = None) -> AsyncIterator[Metrics | None]:
    """Have everything recorded that is configured to be, from before the first leftover is removed. What is not
    configured is not even loaded."""
    async with contextlib.AsyncExitStack() as stack:
        recorders: list[telemetry.Recorder] = []
        metrics: Metrics | None = None
        if config.metrics.listen:
            from shim.metrics import Metrics

            metrics = Metrics()
            recorders.append(metrics.instruments)
            stack.callback(asyncio.create_task(metrics.lag.watch()).cancel)
        if config.tracing.endpoint:
            collector = _collector(config, pod)
            recorders.append(collector.tracing)
            stack.push_async_callback(collector.close, config.stop_grace)
        stack.enter_context(telemetry.recorded_by(*recorders))
        yield metrics


def _collector(config: Config, pod: str | None) -> Collector:
    """Raises NodeFault where OpenTelemetry is not installed."""
    try:
        from shim.tracing import Collector
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise NodeFault(
            "tracing is configured and OpenTelemetry is not installed",
            subject="tracing.endpoint",
            remedy="install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-grpc beside the service (its extra "
            "`tracing`), or leave the endpoint empty",
        ) from error
    return Collector(config.tracing, {"service.instance.id": pod} if pod is not None else None)


@contextlib.asynccontextmanager
async def _serving(
    config: Config,
    metrics: Metrics | None,
    pod: _Pod | None = None,
    given: Mapping[Path, socket.socket] = MappingProxyType({}),
) -> AsyncIterator[_Running]:
    """Take over what a former daemon left, and serve: `pod` alone, or the node. `given` are doors that listen already,
    by path."""
    publisher = Publisher(sender)
    default = f"{config.containerd.address}.ttrpc"
    tell, chronicle = announcer(publisher, default), Chronicle()

    def announce(occurrence: Occurrence) -> None:
        chronicle.hear(occurrence)
        tell(occurrence)

    node = await make_node(config, announce, pod.node_dir if pod else None)
    sandboxes = Sandboxes(node)
    publisher.resync = functools.partial(_tell_present, tell, sandboxes, default)
    await adopt_all(node, sandboxes)
    checker = Checker(announce)
    doors = _doors(config, sandboxes, InspectionService(sandboxes, checker, chronicle), pod)
    scrapes = None
    if metrics is not None:
        metrics.of(sandboxes, checker, publisher)
        scrapes = ScrapeServer(metrics.expose)
        await scrapes.start(config.metrics.listen)
    background = [asyncio.create_task(_sweep(node, pod))]
    if config.check.every:
        background.append(asyncio.create_task(Rounds(sandboxes, checker, config.check.every).run()))
    _keep_what_is_loaded()
    try:
        await doors.grpc.start(given.get(config.grpc_socket, config.grpc_socket))
        await doors.ttrpc.start(given.get(config.ttrpc_socket, config.ttrpc_socket))
        _log.info(
            "serving",
            grpc=os.fspath(config.grpc_socket),
            ttrpc=os.fspath(config.ttrpc_socket),
            engine=node.engine.binary,
            pid=os.getpid(),
        )
        yield _Running(sandboxes, publisher, doors)
    finally:
        for work in background:
            work.cancel()
        # Monitors live on: the journal lets the next daemon adopt them.
        await asyncio.gather(
            *(door.stop(config.stop_grace) for door in (doors.ttrpc, doors.namespaced, doors.grpc)),
        )
        if scrapes is not None:
            await scrapes.stop()
        await node.images.close()
        await publisher.close(config.stop_grace)
        await all_settled(config.stop_grace)
        node.stop()


def _keep_what_is_loaded() -> None:
    """Take all objects that there are by now out of the garbage collector's way: modules and messages' types stay, and
    a full collection that looks at them again holds the event loop up for eight milliseconds."""
    gc.collect()
    gc.freeze()


async def _sweep(node: Node, pod: _Pod | None) -> None:
    """Tidy the cache of images, once and in nobody's way. It is the node's, so no daemon of one pod does."""
    if pod is not None and pod.namespace:
        return
    try:
        await node.images.sweep()
    except NodeFault as error:
        _log.warning("the cache of images is not tidied", error=str(error))


def _tell_present(tell: Callable[[Occurrence], None], sandboxes: Sandboxes, default: str, destination: str) -> None:
    for occurrence in present(sandboxes.all(), destination, default):
        tell(occurrence)


@dataclass(frozen=True, slots=True)
class _Doors:
    """Where the daemon is spoken to, and for how long, where that is not for ever."""

    ttrpc: TtrpcServer
    namespaced: NamespacedDoors
    grpc: GrpcServer
    lifetime: Lifetime | None


def _doors(config: Config, sandboxes: Sandboxes, inspecting: InspectionService, pod: _Pod | None) -> _Doors:
    destinations = Destinations()

    def task(pb: ModuleType) -> Service:
        handlers = TaskService(pb, sandboxes, destinations)
        # A Create that is cut off is undone whole.
        return from_descriptor(
            pb.DESCRIPTOR.services_by_name["Task"], handlers, cancellable={"Create", "Wait"}, endless={"Wait"}
        )

    async def only_door(_: str) -> Path:
        return config.ttrpc_socket

    # containerd 1.x knows Task v2 alone, and speaks to shims over ttrpc alone.
    v2, v3 = task(task_v2_pb2), task(task_v3_pb2)
    namespaced = NamespacedDoors(config.run_dir / "ns", (v2,))
    bootstrap = BootstrapService(
        sandboxes,
        destinations,
        Versions(ask_version),
        config,
        __version__,
        door=namespaced.path if pod is None else only_door,
        run_dir=config.run_dir if pod is None else pod.node_dir,
    )
    courier = from_descriptor(courier_pb2.DESCRIPTOR.services_by_name["Bootstrap"], bootstrap)
    pods = Pods(sandboxes, destinations)
    controller = from_descriptor(
        services_sandbox_v1_pb2.DESCRIPTOR.services_by_name["Controller"],
        ControllerService(pods, config),
        cancellable={"Wait"},
        endless={"Wait"},
    )
    sandbox = from_descriptor(
        runtime_sandbox_v1_pb2.DESCRIPTOR.services_by_name["Sandbox"],
        SandboxService(pods),
        cancellable={"WaitSandbox"},
        endless={"WaitSandbox"},
    )
    inspection = from_descriptor(
        inspection_pb2.DESCRIPTOR.services_by_name["Inspection"],
        inspecting,
        cancellable={"List", "Inspect", "Check", "Topology", "Logs"},
    )
    streaming = from_descriptor(
        services_streaming_v1_pb2.DESCRIPTOR.services_by_name["Streaming"],
        StreamingService(sandboxes.node.stdio.rendezvous),
    )
    over_ttrpc = (v2, v3, sandbox, courier, streaming)
    over_grpc = (v3, controller, sandbox, inspection, streaming)
    if pod is None:
        return _Doors(TtrpcServer(over_ttrpc), namespaced, GrpcServer(over_grpc), None)
    lifetime = Lifetime(
        empty=lambda: not sandboxes.all(),
        announced=lambda: destinations.announced,
        connected=lambda: bool(own.connections),
    )
    # All calls are of the pod's namespace, so no further door must say which one it is.
    own = TtrpcServer(map(lifetime.watch, over_ttrpc), pod.namespace)
    return _Doors(own, namespaced, GrpcServer(map(lifetime.watch, over_grpc)), lifetime)
