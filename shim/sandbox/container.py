"""One container after its creation: who may do what, when, and what is said of it.

All that changes the container takes the pod's turn; a signal, and waiting for an exit, do not. An exit is handled in a
turn too, so that a start is always announced before the exit that it caused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from pathlib import Path
from typing import Any

import msgspec

from shim import log, oom, stats, telemetry
from shim.errors import (
    AlreadyExists,
    InvalidRequest,
    NodeFault,
    NotFound,
    ShimError,
    TimedOut,
    Unexpected,
    Unreachable,
    Unsupported,
    WrongState,
)
from shim.network.checking.check import Report
from shim.network.kernel.tap import close_tap
from shim.oci.engine import Engine
from shim.oci.rewrite import Spec, container_name, is_sandbox, log_directory, namespace_path
from shim.process.reaper import Exit
from shim.process.relay import Overheard
from shim.process.stdio import Streams
from shim.process.terminal import ConsoleSocket, relay
from shim.sandbox import identifiers
from shim.sandbox.booting import boot
from shim.sandbox.node import Node
from shim.sandbox.occurrences import (
    Deleted,
    ExecAdded,
    ExecStarted,
    Exited,
    Failed,
    OutOfMemory,
    Paused,
    Resumed,
    Started,
    about,
)
from shim.sandbox.process import Process
from shim.sandbox.record import ContainerRecord
from shim.sandbox.state import Call, Status
from shim.sandbox.stopping import Stopping
from shim.sandbox.teardown import dismantle, restore_network
from shim.telemetry import Phase

_log = log.get(__name__)

_DRAIN = 2.0  # seconds that output may take to be relayed after the exit, where somebody still holds it or reads slowly
_HANGING_UP = 0.5  # seconds in which a monitor that has closed its control socket turns out to have ended
_EXECS_END = 10.0  # seconds to wait for execs whose container is gone


class Container:
    """A created container. `creation.create` makes one; `Container.delete` ends it."""

    def __init__(
        self, node: Node, record: ContainerRecord, spec: Spec, turn: asyncio.Lock, *, settle: float = 0.0
    ) -> None:
        """`turn` is the pod's; `settle` is how long (seconds) a start waits for a monitor that dies at once, 0 for an
        ordinary container."""
        self.node = node
        self.record = record
        self.init = Process(record.container, record.streams)
        self.execs: dict[str, Process] = {}
        self.stderr: Overheard | None = None
        #: What the last check of its guest found.
        self.checked: Report | None = None
        self._exec_specs: dict[str, bytes] = {}
        self._stopping = Stopping(node, record)
        self._memory: oom.Watch | None = None
        self._spec = spec
        self._settle = settle
        self._turn = turn
        self._exit: asyncio.Future[Exit] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: The descriptors that were handed to a monitor, its taps first. Kept open beyond its end: the kernel takes
        #: a tap down when the last one is closed, which would keep the monitor from ending for tens of milliseconds.
        self.handed: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<Container {self.record.key} {self.init.status} unikernel={self.record.unikernel}>"

    @property
    def id(self) -> str:
        """The container's id."""
        return self.record.container

    @property
    def name(self) -> str:
        """What the pod calls the container in each of its lives, "" outside Kubernetes."""
        return container_name(self._spec)

    @property
    def kind(self) -> str:
        """What it is: `unikernel`, `pause`, or any other `container`."""
        if self.record.unikernel:
            return "unikernel"
        return "pause" if is_sandbox(self._spec) else "container"

    @property
    def pod_name(self) -> tuple[str, str]:
        """Kubernetes' namespace and the pod's name in it, "" outside Kubernetes."""
        return self.record.pod

    @property
    def log_directory(self) -> str:
        """Where the kubelet wants the logs of the pod's containers, as a pause container is told; else ""."""
        return log_directory(self._spec)

    @property
    def command(self) -> tuple[str, ...]:
        """What its init runs; a unikernel's is its monitor."""
        return tuple(str(word) for word in self._spec["process"].get("args") or ())

    @property
    def netns(self) -> str | None:
        """The network namespace of its configuration: a path, "" for a new one, None for the node's."""
        return namespace_path(self._spec, "network")

    @property
    def _engine(self) -> Engine:
        return self.node.engine.within(self.record.namespace)

    def _notes(self) -> dict[str, str]:
        record = self.record
        ids = {"container": record.container, "sandbox": record.sandbox, "namespace": record.namespace}
        return {**ids, "kind": self.kind}

    def process(self, exec_id: str) -> Process:
        """The init ("") or an exec. Raises NotFound."""
        if not exec_id:
            return self.init
        try:
            return self.execs[exec_id]
        except KeyError:
            raise NotFound("process does not exist", subject=exec_id) from None

    def supervise(self, exit: asyncio.Future[Exit]) -> None:
        """Take note of the init's end whenever it comes; called once, by whoever made or adopted the container."""
        self._exit = exit
        if self.record.oom_counter is not None:
            self._memory = self.node.memory.watch(self.record.oom_counter, self.record.oom_kills, self._out_of_memory)
        self._background(self._init_ended(exit))

    def _out_of_memory(self, kills: int) -> None:
        self.record.oom_kills = kills
        self._journal()
        _log.warning("out of memory", container=self.id, kills=kills)
        self.node.announce(OutOfMemory(**about(self.record)))

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _init_ended(self, exit: asyncio.Future[Exit]) -> None:
        ended = await exit
        async with self._turn:
            await self._handle_init_exit(ended)

    async def _handle_init_exit(self, ended: Exit) -> None:
        if self.init.status in (Status.STOPPED, Status.DELETED):
            return  # a deletion that could not wait for this has handled it
        with telemetry.phase(Phase.EXIT, **self._notes()):
            await self._finish(ended)

    async def _finish(self, ended: Exit) -> None:
        if self._memory is not None:
            self._memory.end()
        ended = self._stopping.seen_by_callers(ended)
        await self._tidy_up()
        # containerd deletes a task only once its streams have ended, so none may be held open beyond the exit.
        if self.stderr is not None:
            self.stderr.close()
        await self._close_streams(self.init)
        self.record.exit = ended
        self._journal()
        self.init.end(ended)
        _log.info("exited", container=self.id, pid=self.init.pid, status=ended.status, words=self.last_words())
        self.node.announce(
            Exited(**about(self.record), process=self.id, pid=self.init.pid, exit=ended, words=self.last_words())
        )

    async def _tidy_up(self) -> None:
        """What follows the init's end, before anybody is told: eth0 must be whole again when a CNI plugin's DEL runs,
        and every other process's exit must be announced first."""
        if namespace_path(self._spec, "pid") != "":
            with contextlib.suppress(ShimError):
                await self._engine.kill(self.id, signal.SIGKILL, everyone=True)
        try:
            await restore_network(self.node, self.record)
        except (ShimError, OSError) as error:
            # Delete tries again and reports it; the exit must be told in any case.
            _log.error("the pod's network could not be restored yet", container=self.id, error=str(error))
        self.let_go()
        running = [process.wait() for process in self.execs.values() if process.status is Status.RUNNING]
        if running:
            await asyncio.wait([asyncio.ensure_future(wait) for wait in running], timeout=_EXECS_END)

    def let_go(self) -> None:
        """Close what was handed to the monitor, with nobody waiting; harmless twice."""
        handed, self.handed = self.handed, ()
        for descriptor in handed:
            close_tap(descriptor)

    async def _close_streams(self, process: Process) -> None:
        try:
            await process.close_streams(_DRAIN)
            # Before the exit is told: containerd then reads no more of a stream, whatever was sent.
            await self.node.stdio.end(process.streams, _DRAIN)
        except OSError as error:
            _log.warning("streams", container=self.id, process=process.name, error=str(error))

    def _journal(self) -> None:
        try:
            self.node.journal.write(self.record.key, self.record)
        except ShimError as error:
            _log.error("journal", container=self.id, error=str(error))

    def last_words(self) -> str:
        """What the monitor last said on stderr; "" for an ordinary container."""
        return self.stderr.words() if self.stderr is not None else ""

    async def start(self, exec_id: str) -> int:
        """Let the init or an exec run; returns its pid.

        Raises Unexpected in the wrong state or with the engine's words, NodeFault with a monitor's last words when it
        dies at once, and the errors of `booting.boot`, with the monitor ended.
        """
        if exec_id:
            if self.init.status is Status.STOPPED:
                raise self._not_running(exec_id)  # the runc shim's order: this before whether there is such an exec
            return await self._start_exec(self.process(exec_id))
        with telemetry.phase(Phase.START, **self._notes()):
            async with self._turn:
                await self._start_init()
            return self.init.pid

    async def _start_init(self) -> None:
        self.init.require(Call.START)
        self.record.running = True
        self.node.journal.write(self.record.key, self.record)
        try:
            with telemetry.phase(Phase.ENGINE_START, kind=self.kind):
                await self._engine.start(self.id)
            if self.record.machine:
                await self._boot()
            await self._refuse_stillborn(self._settle)
        except (ShimError, OSError) as error:
            self.node.announce(Failed(**about(self.record), call="started", error=str(error)))
            raise
        self.init.become(Status.RUNNING)
        self.node.announce(Started(**about(self.record), pid=self.init.pid))

    async def _boot(self) -> None:
        """Tell the monitor its machine. One that does not run it then is of no use to anybody, and is ended."""
        try:
            with telemetry.phase(Phase.BOOT):
                await boot(self.node, self.record)
        except Unreachable:
            await self._end_unbooted(_HANGING_UP)
            raise
        except BaseException:
            await self._end_unbooted(0.0)
            raise
        self.record.machine = b""
        self._journal()

    async def _end_unbooted(self, settle: float) -> None:
        """End the monitor, and wait for that. Raises NodeFault with its last words where it ends by itself within
        `settle` seconds."""
        try:
            await self._refuse_stillborn(settle)
        finally:
            if self._exit is not None and not self._exit.done():
                with contextlib.suppress(ProcessLookupError):
                    self._stopping.signal(signal.SIGKILL, self._exit)
                await asyncio.wait([self._exit], timeout=_EXECS_END)

    def finish_boot(self) -> None:
        """Go on with a start that a former daemon did not finish, in the background: a monitor may not answer."""
        self._background(self._finish_boot())

    async def _finish_boot(self) -> None:
        async with self._turn:
            if self.init.status is not Status.RUNNING:
                return
            try:
                await self._boot()
            except (ShimError, OSError) as error:
                _log.error("a start could not be finished", container=self.id, error=str(error))

    async def _refuse_stillborn(self, settle: float) -> None:
        """A monitor that cannot run its kernel says so and dies within milliseconds, `settle` seconds at most: that is
        this call's failure, and its last words are the reason. A guest that ends, well or badly, has said nothing on
        the monitor's stderr."""
        if not settle or self._exit is None:
            return
        with telemetry.phase(Phase.SETTLE):
            await asyncio.wait([self._exit], timeout=settle)
        if not self._exit.done() or not self._exit.result().status:
            return
        words = self.last_words()
        if words:
            raise NodeFault(
                f"the monitor died at once with status {self._exit.result().status}: {words}", subject=self.id
            )

    def _not_running(self, exec_id: str) -> WrongState:
        return WrongState(f"container {self.id} init process is not running", subject=exec_id)

    async def _start_exec(self, process: Process) -> int:
        async with self._turn:
            process.require(Call.START)
            if self.init.status is not Status.RUNNING:
                raise self._not_running(process.name)
            with self.node.reaper.early_exits() as early:
                try:
                    process.pid = await self._spawn_exec(process)
                except BaseException:
                    await self._close_streams(process)
                    process.failed_to_start()
                    raise
                exit = self.node.reaper.watch(process.pid, early)
            process.become(Status.RUNNING)
            self.node.announce(ExecStarted(**about(self.record), process=process.name, pid=process.pid))
        self._background(self._exec_ended(process, exit))
        return process.pid

    async def _spawn_exec(self, process: Process) -> int:
        spec = self._exec_specs[process.name]
        if process.streams.terminal:
            socket = ConsoleSocket(console_path(self.node, self.record, process.name))
            try:
                pid = await self._engine.exec(self.id, process.name, spec, fds={}, console=socket.path)
                master = await socket.receive()
            finally:
                socket.close()
            process.terminal = await relay(self.node.stdio, master, process.streams, self.id, self.record.namespace)
            return pid
        process.descriptors = await self.node.stdio.all(process.streams, self.id, self.record.namespace)
        try:
            return await self._engine.exec(self.id, process.name, spec, fds=process.descriptors.child)
        finally:
            process.descriptors.close_child()

    async def _exec_ended(self, process: Process, exit: asyncio.Future[Exit]) -> None:
        ended = await exit
        await self._close_streams(process)
        process.end(ended)
        self.node.announce(Exited(**about(self.record), process=process.name, pid=process.pid, exit=ended))

    async def exec(self, exec_id: str, streams: Streams, spec: bytes) -> None:
        """Describe another process; `spec` is an OCI process as JSON. `start` runs it.

        Raises Unsupported for a unikernel, AlreadyExists, Unexpected in the wrong state.
        """
        if self.record.unikernel:
            raise Unsupported(
                "a unikernel has one address space and no processes, so nothing can be executed in it",
                subject=self.id,
                remedy="use the guest's own interface, or a sidecar container in the same pod",
            )
        identifiers.check(exec_id, "exec id")
        if exec_id in self.execs:
            raise AlreadyExists("a process with this id exists", subject=exec_id)
        self.init.require(Call.EXEC)
        try:
            process: dict[str, Any] = msgspec.json.decode(spec, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"the process is not an OCI process: {error}", subject=exec_id) from error
        process["terminal"] = streams.terminal
        self._exec_specs[exec_id] = msgspec.json.encode(process)
        self.execs[exec_id] = Process(exec_id, streams)
        self.node.announce(ExecAdded(**about(self.record), process=exec_id))

    async def kill(self, exec_id: str, signum: int, everyone: bool) -> None:
        """Signal a process, or all of the container's. Raises NotFound once it has finished."""
        process = self.process(exec_id)
        if process is not self.init:
            if not process.pid:
                raise WrongState("process not created", subject=exec_id)
            if process.status is Status.STOPPED:
                raise NotFound("process already finished", subject=exec_id)
            with _refused_signal(exec_id):
                os.kill(process.pid, signum)
            return
        if everyone or self.init.status is Status.CREATED:
            # A created init is the engine's own, blocked: only the engine knows how to reach all of it.
            await self._engine.kill(self.id, signum, everyone=everyone)
            return
        if self.init.status in (Status.STOPPED, Status.DELETED) or self._exit is None or self._exit.done():
            raise NotFound("process already finished", subject=self.id)
        with _refused_signal(self.id):
            self._stopping.signal(signum, self._exit)
        if signum == signal.SIGKILL and self.init.status is Status.PAUSED:
            # A frozen process takes its death when it is thawed (cgroup-v1/freezer-subsystem.rst).
            self._background(self._thaw())

    async def _thaw(self) -> None:
        with contextlib.suppress(ShimError):
            await self._engine.resume(self.id)

    def pids(self) -> list[int]:
        """Every process in the container, as its cgroup lists them; none once its init has finished."""
        if self.init.status in (Status.STOPPED, Status.DELETED):
            return []
        return stats.pids(stats.cgroup_of(self.init.pid))

    async def pause(self) -> None:
        """Freeze all processes."""
        async with self._turn:
            self.init.require(Call.PAUSE)
            try:
                await self._engine.pause(self.id)
            except ShimError:
                # An engine that failed, or was killed for its slowness, may have done it all the same.
                if await asyncio.to_thread(stats.is_frozen, self.init.pid):
                    self._paused()
                raise
            self._paused()

    def _paused(self) -> None:
        self.init.become(Status.PAUSED)
        self.node.announce(Paused(**about(self.record)))

    async def resume(self) -> None:
        """Thaw them."""
        async with self._turn:
            self.init.require(Call.RESUME)
            await self._engine.resume(self.id)
            self.init.become(Status.RUNNING)
            self.node.announce(Resumed(**about(self.record)))

    async def update(self, resources: bytes) -> None:
        """Change limits; `resources` is an OCI LinuxResources object as JSON."""
        async with self._turn:
            self.init.require(Call.UPDATE)
            await self._engine.update(self.id, resources)

    async def delete(self, exec_id: str) -> Process:
        """Remove an exec that has ended, or the whole container; returns the process for its pid and exit.

        Raises Unexpected while it runs, NotFound when it is unknown.
        """
        process = self.process(exec_id)
        async with self._turn:
            if process.status is Status.DELETED:
                # By a call that came first; containerd takes NOT_FOUND for done.
                raise NotFound("process already deleted", subject=exec_id or self.id)
            process.require(Call.DELETE)
            if process is not self.init:
                process.never_ran()
                process.become(Status.DELETED)
                del self.execs[exec_id]
                self._exec_specs.pop(exec_id, None)
                self.node.stdio.forget(process.streams)
                return process
            await self._remove()
            self.node.announce(Deleted(**about(self.record), pid=self.init.pid, exit=self.init.exit))
            return process

    async def _remove(self) -> None:
        if self.init.status is Status.CREATED and self._exit is not None:
            await self._engine.delete(self.id, force=True)
            await self._handle_init_exit(await asyncio.wait_for(asyncio.shield(self._exit), _EXECS_END))
        await dismantle(self.node, self.record)
        for process in self.execs.values():
            self.node.stdio.forget(process.streams)
        self.init.become(Status.DELETED)

    async def stop(self, grace: float = 0.0) -> None:
        """Kill whatever runs and wait for its end; a guest that can be asked has `grace` seconds to power down first.

        Raises TimedOut when it does not die.
        """
        if self.init.status in (Status.STOPPED, Status.DELETED):
            return
        if grace and self.record.powerdown and self.init.status is Status.RUNNING:
            with contextlib.suppress(NotFound, TimeoutError):
                await self.kill("", signal.SIGTERM, everyone=False)
                async with asyncio.timeout(grace):
                    await self.init.wait()
                return
        with contextlib.suppress(NotFound):
            await self.kill("", signal.SIGKILL, everyone=False)
        try:
            async with asyncio.timeout(_EXECS_END):
                await self.init.wait()
        except TimeoutError:
            raise TimedOut("the container does not die", subject=self.id) from None

    def doom(self, removed: str) -> None:
        """Note that it goes with what is to be removed, an id, though nobody will ask for that again."""
        self.record.doomed = removed
        self._journal()

    async def destroy(self) -> Process:
        """Stop and remove the container, whatever state it is in; for containerd's `delete` and a sandbox that is
        shut down."""
        await self.stop()
        try:
            return await self.delete("")
        except NotFound:
            if self.init.status is not Status.DELETED:
                raise
            return self.init  # a Delete was under way after all, and came first


def console_path(node: Node, record: ContainerRecord, name: str) -> Path:
    """Where the engine delivers a terminal. Short: a unix socket's path has 107 bytes, and ids have 76 each."""
    return node.config.run_dir / "tty" / f"{abs(hash((record.key, name))):x}.sock"


@contextlib.contextmanager
def _refused_signal(subject: str) -> Any:
    try:
        yield
    except ProcessLookupError:
        raise NotFound("process already finished", subject=subject) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Unexpected("there is no such signal", subject=subject) from None
