"""The service itself: reads the configuration, wires the parts, runs the loop until a signal."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import uvloop

from shim import __version__, faults, log
from shim.config import Config
from shim.errors import NodeFault
from shim.events import Publisher
from shim.guests.registry import guests
from shim.journal import Journal, Record, Step
from shim.monitors.registry import monitors
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
from shim.sandbox.adoption import adopt_all
from shim.sandbox.checks import Checker
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Occurrence
from shim.sandbox.record import ContainerRecord, SandboxRecord
from shim.sandbox.sandboxes import Sandboxes
from shim.services.announce import announcer
from shim.services.bootstrap import BootstrapService
from shim.services.controller import ControllerService
from shim.services.destinations import Destinations
from shim.services.inspection import InspectionService
from shim.services.streaming import StreamingService
from shim.services.task import TaskService
from shim.services.versions import Versions
from shim.wire import (
    courier_pb2,
    inspection_pb2,
    services_sandbox_v1_pb2,
    services_streaming_v1_pb2,
    task_v2_pb2,
    task_v3_pb2,
)

_log = log.get(__name__)


async def make_node(config: Config, announce: Callable[[Occurrence], None]) -> Node:
    """Everything sandboxes work with, on the running loop. Raises NodeFault where the node lacks something."""
    try:
        config.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("engine", "engine/calls", "containers", "sandboxes", "tty", "ns", "streams"):
            (config.run_dir / name).mkdir(mode=0o700, exist_ok=True)
        for name in ("engine/calls", "tty"):
            for leftover in (config.run_dir / name).iterdir():  # of calls that a former daemon died in
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise NodeFault(
            f"the run directory cannot be made: {os.strerror(error.errno or 0)}",
            subject=os.fspath(config.run_dir),
            remedy="run as root, or set run_dir",
        ) from error
    seal_inherited()
    step = faults.from_environment()
    reaper = Reaper()
    reaper.start()
    journal = _journal(config.run_dir / "journal", ContainerRecord, step)
    pods = _journal(config.run_dir / "journal" / "pods", SandboxRecord, step)
    return Node(
        config=config,
        reaper=reaper,
        stdio=Opener(reaper, Rendezvous(config.run_dir / "streams")),
        engine=await _engine(config, reaper),
        journal=journal,
        pods=pods,
        guests=guests(),
        monitors=monitors(config.monitors, functools.partial(run, reaper), config.run_dir),
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


def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises NodeFault when it cannot start."""
    as_json = {"auto": None, "json": True, "text": False}[config.log.format]
    log.configure(config.log.level, json=as_json)
    uvloop.run(_serve(config))


async def _serve(config: Config) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    publisher = Publisher(sender)
    node = await make_node(config, announcer(publisher, f"{config.containerd.address}.ttrpc"))
    sandboxes = Sandboxes(node)
    await adopt_all(node, sandboxes)
    checker = Checker()
    doors = _doors(config, sandboxes, checker)
    scrapes = await _scrapes(config, sandboxes, checker)
    try:
        await doors.grpc.start(config.grpc_socket)
        await doors.ttrpc.start(config.ttrpc_socket)
        _log.info(
            "serving",
            grpc=os.fspath(config.grpc_socket),
            ttrpc=os.fspath(config.ttrpc_socket),
            engine=node.engine.binary,
            pid=os.getpid(),
        )
        await stopping.wait()
        _log.info("stopping", sandboxes=len(sandboxes.all()))
    finally:
        # Monitors live on: the journal lets the next daemon adopt them.
        await asyncio.gather(
            *(door.stop(config.stop_grace) for door in (doors.ttrpc, doors.namespaced, doors.grpc)),
        )
        if scrapes is not None:
            await scrapes.stop()
        await publisher.close(config.stop_grace)
        node.stop()


@dataclass(frozen=True, slots=True)
class _Doors:
    """Where the daemon is spoken to."""

    ttrpc: TtrpcServer
    namespaced: NamespacedDoors
    grpc: GrpcServer


async def _scrapes(config: Config, sandboxes: Sandboxes, checker: Checker) -> ScrapeServer | None:
    """Where metrics are fetched from, listening; None where none is configured: then nothing of it is even loaded."""
    if not config.metrics.listen:
        return None
    from shim import metrics

    server = ScrapeServer(metrics.exposition(sandboxes, checker))
    await server.start(config.metrics.listen)
    return server


def _doors(config: Config, sandboxes: Sandboxes, checker: Checker) -> _Doors:
    destinations = Destinations()

    def task(pb: ModuleType) -> Service:
        handlers = TaskService(pb, sandboxes, destinations)
        # A Create that is cut off is undone whole.
        return from_descriptor(
            pb.DESCRIPTOR.services_by_name["Task"], handlers, cancellable={"Create", "Wait"}, endless={"Wait"}
        )

    # containerd 1.x knows Task v2 alone, and speaks to shims over ttrpc alone.
    v2, v3 = task(task_v2_pb2), task(task_v3_pb2)
    namespaced = NamespacedDoors(config.run_dir / "ns", (v2,))
    bootstrap = BootstrapService(
        sandboxes, destinations, Versions(ask_version), config, __version__, door=namespaced.path
    )
    courier = from_descriptor(courier_pb2.DESCRIPTOR.services_by_name["Bootstrap"], bootstrap)
    controller = from_descriptor(
        services_sandbox_v1_pb2.DESCRIPTOR.services_by_name["Controller"],
        ControllerService(sandboxes, config),
        cancellable={"Wait"},
        endless={"Wait"},
    )
    inspection = from_descriptor(
        inspection_pb2.DESCRIPTOR.services_by_name["Inspection"],
        InspectionService(sandboxes, checker),
        cancellable={"List", "Inspect", "Check"},
    )
    streaming = from_descriptor(
        services_streaming_v1_pb2.DESCRIPTOR.services_by_name["Streaming"],
        StreamingService(sandboxes.node.stdio.rendezvous),
    )
    return _Doors(
        TtrpcServer((v2, v3, courier, streaming)), namespaced, GrpcServer((v3, controller, inspection, streaming))
    )
