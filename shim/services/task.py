"""containerd's Task service: v2 and v3 differ in nothing but the package, so one class serves both."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.empty_pb2 import Empty

from shim import log, stats
from shim.errors import InvalidRequest, NotFound, Unsupported
from shim.oci.rootfs import Mount
from shim.process.stdio import Streams
from shim.rpc.service import Call
from shim.sandbox.container import Container
from shim.sandbox.creation import Order
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import Call as Action
from shim.sandbox.state import Status
from shim.services import metrics
from shim.services.destinations import Destinations
from shim.services.wellknown import packed, timestamp
from shim.wire import runc_options_pb2, types_task_pb2

_log = log.get(__name__)

_STATUS = {
    Status.CREATED: types_task_pb2.CREATED,
    Status.RUNNING: types_task_pb2.RUNNING,
    Status.PAUSED: types_task_pb2.PAUSED,
    Status.STOPPED: types_task_pb2.STOPPED,
    Status.DELETED: types_task_pb2.STOPPED,
}


def _streams(request: Any) -> Streams:
    for value in (request.stdin, request.stdout, request.stderr):
        if value.startswith("fd://"):
            raise InvalidRequest("a caller cannot name the daemon's own descriptors", subject=value)
    return Streams(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal)


def _usage(pid: int) -> stats.CgroupV1Stats | stats.CgroupV2Stats:
    return stats.read(stats.cgroup_of(pid))


class TaskService:
    """Messages in, messages out. `pb` is the generated module of the version to serve."""

    def __init__(self, pb: ModuleType, sandboxes: Sandboxes, destinations: Destinations) -> None:
        self._pb = pb
        self._sandboxes = sandboxes
        self._destinations = destinations

    def _container(self, request: Any, call: Call) -> Container:
        call.span.note(container=request.id)
        return self._sandboxes.container(call.namespace, request.id)

    async def create(self, request: Any, call: Call) -> Any:
        """Create a container, its init blocked."""
        call.span.note(container=request.id)
        if request.checkpoint:
            raise InvalidRequest("restoring from a checkpoint is not possible", subject=request.id)
        if not Path(request.bundle).is_absolute():
            raise InvalidRequest("the bundle must be an absolute path", subject=repr(request.bundle))
        order = Order(
            id=request.id,
            bundle=Path(request.bundle),
            rootfs=tuple(
                Mount(type=m.type, source=m.source, target=m.target, options=tuple(m.options)) for m in request.rootfs
            ),
            streams=_streams(request),
            destination=self._destinations.of(call.namespace, request.id),
        )
        try:
            with log.bound(container=request.id, namespace=call.namespace):
                container = await self._sandboxes.create(call.namespace, order)
        except Unsupported as error:
            # containerd 2.x takes UNIMPLEMENTED here for "speak an older version", and over gRPC crashes on the way
            # (2.1.9: a nil shimTask after the downgrade was refused). So Create has another word for it.
            raise InvalidRequest(error.message, subject=error.subject, remedy=error.remedy) from error
        return self._pb.CreateTaskResponse(pid=container.init.pid)

    async def start(self, request: Any, call: Call) -> Any:
        """Let a created process run."""
        return self._pb.StartResponse(pid=await self._container(request, call).start(request.exec_id))

    async def state(self, request: Any, call: Call) -> Any:
        """Where a process is in its life."""
        container = self._container(request, call)
        process = container.process(request.exec_id)
        # An exec that runs is frozen with its container.
        frozen = container.init.status is Status.PAUSED and process.status is Status.RUNNING
        return self._pb.StateResponse(
            id=process.name,
            bundle=os.fspath(container.record.bundle),
            pid=process.pid,
            status=_STATUS[Status.PAUSED if frozen else process.status],
            stdin=process.streams.stdin,
            stdout=process.streams.stdout,
            stderr=process.streams.stderr,
            terminal=process.streams.terminal,
            exit_status=process.exit.status,
            exited_at=timestamp(process.exit.at),
            exec_id=request.exec_id,
        )

    async def wait(self, request: Any, call: Call) -> Any:
        """How a process ended, once it has."""
        ended = await self._container(request, call).process(request.exec_id).wait()
        return self._pb.WaitResponse(exit_status=ended.status, exited_at=timestamp(ended.at))

    async def kill(self, request: Any, call: Call) -> Empty:
        """Signal a process."""
        await self._container(request, call).kill(request.exec_id, request.signal, request.all)
        return Empty()

    async def delete(self, request: Any, call: Call) -> Any:
        """Remove what has ended."""
        call.span.note(container=request.id)
        process = await self._sandboxes.delete(call.namespace, request.id, request.exec_id)
        if not request.exec_id:
            self._destinations.forget(call.namespace, request.id)
        return self._pb.DeleteResponse(
            pid=process.pid, exit_status=process.exit.status, exited_at=timestamp(process.exit.at)
        )

    async def exec(self, request: Any, call: Call) -> Empty:
        """Describe another process of an ordinary container."""
        await self._container(request, call).exec(request.exec_id, _streams(request), request.spec.value)
        return Empty()

    async def pids(self, request: Any, call: Call) -> Any:
        """Every process in the container."""
        container = self._container(request, call)
        execs = {process.pid: process.name for process in container.execs.values()}
        found = []
        for pid in await asyncio.to_thread(container.pids):
            details = packed(runc_options_pb2.ProcessDetails(exec_id=execs[pid])) if pid in execs else None
            found.append(types_task_pb2.ProcessInfo(pid=pid, info=details))
        return self._pb.PidsResponse(processes=found)

    async def pause(self, request: Any, call: Call) -> Empty:
        """Freeze the container."""
        await self._container(request, call).pause()
        return Empty()

    async def resume(self, request: Any, call: Call) -> Empty:
        """Thaw it."""
        await self._container(request, call).resume()
        return Empty()

    async def update(self, request: Any, call: Call) -> Empty:
        """Change its limits."""
        await self._container(request, call).update(request.resources.value)
        return Empty()

    async def stats(self, request: Any, call: Call) -> Any:
        """What its cgroup counts, as containerd's cgroup metrics."""
        container = self._container(request, call)
        if container.init.status is Status.STOPPED:
            raise NotFound("cgroup does not exist", subject=request.id)
        usage = await asyncio.to_thread(_usage, container.init.pid)
        return self._pb.StatsResponse(stats=packed(metrics.message(usage)))

    async def connect(self, request: Any, call: Call) -> Any:
        """The shim's pid and, where the container is known, its init's."""
        try:
            pid = self._container(request, call).init.pid
        except NotFound:
            pid = 0
        return self._pb.ConnectResponse(shim_pid=os.getpid(), task_pid=pid)

    async def shutdown(self, request: Any, call: Call) -> Empty:
        """containerd asks this when a task is gone; a service for the whole node stays, a pod's knows when to end."""
        return Empty()

    async def close_io(self, request: Any, call: Call) -> Empty:
        """Let a process see the end of its input."""
        process = self._container(request, call).process(request.exec_id)
        if request.stdin:
            process.close_stdin()
        return Empty()

    async def resize_pty(self, request: Any, call: Call) -> Empty:
        """Set a terminal's size."""
        process = self._container(request, call).process(request.exec_id)
        if request.exec_id:
            # The runc shim asks this of an exec alone.
            process.require(Action.RESIZE)
        process.resize(request.width, request.height)
        return Empty()

    async def checkpoint(self, request: Any, call: Call) -> Empty:
        """Refused: a monitor's guest cannot be frozen to disk by criu, and we do it for no container."""
        container = self._container(request, call)
        why = (
            "a unikernel's memory is its monitor's guest memory, which the OCI runtime cannot checkpoint"
            if container.record.unikernel
            else "checkpointing is not supported by this runtime"
        )
        raise Unsupported(why, subject=request.id)
