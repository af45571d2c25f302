"""The Task service call by call: the same calls to our daemon and to containerd's own runc shim answer alike.

Both are spoken to over ttrpc, as containerd does. Codes must be equal; texts need not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from difflib import unified_diff
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as AnyMessage

from shim import stats
from shim.errors import Code, ShimError, Unreachable
from shim.process import pidfd
from shim.rpc.status import inward
from shim.rpc.ttrpc_client import TtrpcClient
from shim.wire import task_v2_pb2, task_v3_pb2, types_task_pb2
from tests.integration import guest, paths
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(90)

NAMESPACE = "tasks"
RESOURCES = AnyMessage(
    type_url="types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
    value=json.dumps({"pids": {"limit": 200}}).encode(),
)


class GrpcClient:
    """The gRPC door, called as the ttrpc one is."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}")

    async def call(
        self, service: str, method: str, request: Any, answer: Any, *, namespace: str, timeout: float
    ) -> Any:
        stub: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return await stub(request, timeout=timeout, metadata=(("containerd-namespace", namespace),))
        except grpc.aio.AioRpcError as error:
            raise inward(error.code().value[0], error.details() or "") from error

    async def close(self) -> None:
        await self._channel.close()


class Task:
    """One container's Task service, wherever it is served. `call` gives the answer, `code` the status code."""

    def __init__(self, client: TtrpcClient | GrpcClient, pb: ModuleType, id: str, bundle: Path) -> None:
        self.client, self.pb, self.id, self.bundle = client, pb, id, bundle

    async def call(self, method: str, *, id: str | None = None, timeout: float = 20, **fields: Any) -> Any:
        service = self.pb.DESCRIPTOR.services_by_name["Task"]
        kind = service.methods_by_name[method]
        request = getattr(self.pb, kind.input_type.name)(id=self.id if id is None else id, **fields)
        answer = message_factory.GetMessageClass(kind.output_type)
        return await self.client.call(service.full_name, method, request, answer, namespace=NAMESPACE, timeout=timeout)

    async def code(self, method: str, **fields: Any) -> str:
        try:
            await self.call(method, **fields)
        except Unreachable:
            raise  # the peer itself has ended
        except ShimError as error:
            return error.code.name
        return Code.OK.name

    async def create(self, **fields: Any) -> int:
        return int((await self.call("Create", bundle=str(self.bundle), **fields)).pid)

    async def exec(self, exec_id: str, *argv: str, **fields: Any) -> str:
        spec = {"args": argv, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        packed = AnyMessage(type_url="types.containerd.io/x", value=json.dumps(spec).encode())
        return await self.code("Exec", exec_id=exec_id, spec=packed, **fields)


def bundle(
    directory: Path, node: Node, *argv: str, terminal: bool = False, memory: int = 0, own_pids: bool = True
) -> Path:
    """An ordinary busybox container's bundle; `memory` is its limit in bytes."""
    (directory / "rootfs" / "bin").mkdir(parents=True)
    for link in ("proc", "dev", "tmp"):
        (directory / "rootfs" / link).mkdir()
    busybox = directory / "rootfs" / "bin" / "busybox"
    busybox.write_bytes(Path(paths.program("busybox")).read_bytes())
    busybox.chmod(0o755)
    for name in ("sh", "sleep", "cat", "echo", "stty", "kill", "true"):
        (directory / "rootfs" / "bin" / name).symlink_to("busybox")
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": argv, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "terminal": terminal},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ],
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network") if own_pids or kind != "pid"
            ],
            "cgroupsPath": f"{node.cgroup_parent}/{directory.name}",
            "resources": {
                "devices": [{"allow": True, "access": "rwm"}],
                **({"memory": {"limit": memory, "swap": memory}} if memory else {}),
            },
        },
    }
    (directory / "config.json").write_text(json.dumps(spec))
    return directory


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A short directory: a unix socket's path has 107 bytes."""
    yield tmp_path


@asynccontextmanager
async def ours(
    daemon: Daemon, node: Node, directory: Path, *argv: str, door: str = "v3", **options: Any
) -> AsyncIterator[Task]:
    """A container of our daemon, with `options` of `bundle`; whatever is left of it at the end is removed."""
    client: TtrpcClient | GrpcClient
    if door == "grpc":
        client = GrpcClient(daemon.socket)
    else:
        client = await TtrpcClient.connect(str(daemon.ttrpc_socket))
    id = f"ours-{os.getpid()}-{time.monotonic_ns()}"
    pb = task_v2_pb2 if door == "v2" else task_v3_pb2
    made = Task(client, pb, id, bundle(directory / id, node, *argv, **options))
    async with removed_afterwards(made):
        yield made


@asynccontextmanager
async def removed_afterwards(task: Task) -> AsyncIterator[Task]:
    """Whatever is left of the task at the end is removed as containerd's `delete` does, and its client closed."""
    try:
        yield task
    finally:
        await _remove(task)
        if isinstance(task.client, GrpcClient):
            await task.client.close()
        else:
            task.client.close()


@asynccontextmanager
async def runcs(containerd: Containerd, node: Node, directory: Path, *argv: str, **options: Any) -> AsyncIterator[Task]:
    """The same container of containerd's own shim, started as containerd does."""
    id = f"runc-{os.getpid()}-{time.monotonic_ns()}"
    made = bundle(directory / id, node, *argv, **options)
    # Its log's reader; without one it ends at once.
    os.mkfifo(made / "log")
    log = os.open(made / "log", os.O_RDONLY | os.O_NONBLOCK)
    program = paths.cached("containerd-2", "usr", "bin") / "containerd-shim-runc-v2"
    base = [str(program), "-namespace", NAMESPACE, "-id", id, "-address", str(containerd.socket)]
    env = {**os.environ, "TTRPC_ADDRESS": f"{containerd.socket}.ttrpc", "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"}
    done = await asyncio.to_thread(
        subprocess.run, [*base, "start"], cwd=made, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    client = await TtrpcClient.connect(json.loads(done.stdout)["address"])
    task = Task(client, task_v3_pb2, id, made)
    try:
        yield task
    finally:
        await _remove(task)
        with suppress(ShimError):
            await task.call("Shutdown", now=True)
        client.close()
        os.close(log)


async def _remove(task: Task) -> None:
    with suppress(ShimError):
        await task.call("Resume")
    with suppress(ShimError):
        await task.call("Kill", signal=signal.SIGKILL, all=True)
        await task.call("Wait", timeout=5)
    with suppress(ShimError):
        await task.call("Delete")


async def unknown(task: Task) -> list[str]:
    """Every method on a container that does not exist."""
    methods = (
        *("State", "Start", "Delete", "Pids", "Pause", "Resume", "Kill"),
        *("Exec", "ResizePty", "CloseIO", "Update", "Wait", "Stats", "Connect"),
    )
    return [f"{method}={await task.code(method, id='nobody')}" for method in methods]


async def life(task: Task) -> list[str]:
    """Out-of-order and repeated calls through one life."""
    found: list[str] = []

    async def note(method: str, **fields: Any) -> None:
        found.append(f"{method}{sorted(fields)}={await task.code(method, **fields)}")

    async def state(**fields: Any) -> None:
        answer = await task.call("State", **fields)
        found.append(f"state={types_task_pb2.Status.Name(answer.status)} exit={answer.exit_status}")

    await task.create()
    await state()
    for method in ("Pause", "Resume"):
        await note(method)
    await note("Kill", exec_id="nobody", signal=9)
    early = asyncio.ensure_future(task.call("Wait"))
    await note("Start")
    await state()
    for method in ("Start", "Delete", "Resume", "Pids", "Stats", "Connect", "Shutdown", "ResizePty", "CloseIO"):
        await note(method)
    await note("Update", resources=RESOURCES)
    await note("Pause")
    await state()
    for method in ("Pause", "Start", "Delete"):
        await note(method)
    found.append("exec-paused=" + await task.exec("late", "/bin/true"))
    await note("Resume")

    found.append("exec=" + await task.exec("e1", "/bin/sh", "-c", "exit 3"))
    found.append("exec again=" + await task.exec("e1", "/bin/sh"))
    await state(exec_id="e1")
    await note("Start", exec_id="e1")
    found.append(f"exec exit={(await task.call('Wait', exec_id='e1')).exit_status}")
    await note("Start", exec_id="e1")
    await note("Kill", exec_id="e1", signal=9)
    await note("Delete", exec_id="e1")
    await note("Delete", exec_id="e1")
    await note("Start", exec_id="nobody")
    found.append("exec missing=" + await task.exec("e2", "/no/such/program"))
    await note("Start", exec_id="e2")
    found.append("exec late=" + await task.exec("e3", "/bin/sleep", "60"))

    await note("Kill", signal=int(signal.SIGKILL))
    found.append(f"exit={(await early).exit_status} again={(await task.call('Wait')).exit_status}")
    await state()
    await note("Kill", signal=9)
    await note("Kill", signal=9, all=True)
    for method in ("Start", "Pause", "Resume", "ResizePty", "CloseIO"):
        await note(method)
    await note("Update", resources=RESOURCES)
    await note("Start", exec_id="e3")
    found.append("exec-stopped=" + await task.exec("e4", "/bin/true"))
    deleted = await task.call("Delete")
    found.append(f"delete exit={deleted.exit_status}")
    await note("Delete")
    await note("State")
    return found


async def never_started(task: Task) -> list[str]:
    """A container deleted before it ran."""
    await task.create()
    found = [await task.code("Kill", signal=9)]
    await task.call("Wait", timeout=10)
    found.append(f"start={await task.code('Start')}")
    found.append(f"delete={await task.code('Delete')}")
    return found


async def _questions(task: Task, found: list[str]) -> None:
    """What may be asked of a container in any state, for each process it has, had, or never had."""

    async def note(method: str, **fields: Any) -> None:
        shown = " ".join(f"{name}={value!r}" for name, value in fields.items() if name != "resources")
        found.append(f"{method} {shown}: {await task.code(method, **fields)}")

    state = types_task_pb2.Status.Name((await task.call("State")).status)
    found.append(f"--- {state}")
    for exec_id in ("", "added", "going", "gone", "failed", "nobody"):
        try:
            answer = await task.call("State", exec_id=exec_id)
        except ShimError as error:
            found.append(f"State exec_id={exec_id!r}: {error.code.name}")
        else:
            status = types_task_pb2.Status.Name(answer.status)
            if state == "PAUSED" and exec_id in ("added", "gone", "failed"):
                status = "PAUSED"  # the runc shim says so of each, whether it runs or not
            found.append(f"State {exec_id!r}: {status} {answer.exit_status} pid={answer.pid > 0}")
            found.append(f"ended={answer.exited_at.seconds > 0} terminal={answer.terminal}")
            found.append(f"id={answer.id.replace(task.id, 'ID')}")
            # Of an unknown process the runc shim says UNKNOWN here, and elsewhere NOT_FOUND, as we do everywhere.
            for stdin in (False, True):
                await note("CloseIO", exec_id=exec_id, stdin=stdin)
        await note("ResizePty", exec_id=exec_id)
        for number in (0, 999):
            await note("Kill", exec_id=exec_id, signal=number)
    for exec_id in ("going", "nobody"):
        await note("Delete", exec_id=exec_id)
    # The runc shim of containerd 2.1.9 ends itself when an exec is started twice or an Update names no resources.
    for exec_id in ("nobody",):
        await note("Start", exec_id=exec_id)
    await note("Wait", exec_id="nobody")
    found.append(f"exec added: {await task.exec('added', '/bin/true')}")
    await note("Update", resources=AnyMessage(type_url="x", value=b"garbage"))
    for method in ("Pids", "Connect"):
        await note(method)
    if state != "STOPPED":  # the runc shim still counts; of a process that is gone we say NOT_FOUND
        await note("Stats")


async def every_state(task: Task) -> list[str]:
    """The same questions in each state of a life."""
    found: list[str] = []
    await task.create()
    await _questions(task, found)
    await task.call("Start")
    for exec_id, argv in (("going", ("/bin/sleep", "600")), ("gone", ("/bin/true",)), ("failed", ("/none",))):
        found.append(f"exec {exec_id}: {await task.exec(exec_id, *argv)}")
        found.append(f"start {exec_id}: {await task.code('Start', exec_id=exec_id)}")
    await task.call("Wait", exec_id="gone")
    await task.call("Wait", exec_id="failed")
    await _questions(task, found)
    await task.call("Pause")
    await _questions(task, found)
    await task.call("Resume")
    await task.call("Kill", signal=int(signal.SIGKILL))
    await task.call("Wait")
    await task.call("Wait", exec_id="going")
    await _questions(task, found)
    return found


@pytest.mark.parametrize("scenario", [unknown, life, never_started, every_state], ids=lambda it: it.__name__)
@pytest.mark.parametrize("door", ["v3", "v2", "grpc"])
async def test_codes_are_the_runc_shims(
    scenario: Callable[[Task], Awaitable[list[str]]],
    door: str,
    node: Node,
    containerd: Containerd,
    daemon: Daemon,
    clean: LeakCheck,
    place: Path,
) -> None:
    async with runcs(containerd, node, place, "/bin/sleep", "600") as peer:
        expected = await scenario(peer)
    async with ours(daemon, node, place, "/bin/sleep", "600", door=door) as own:
        found = await scenario(own)
    different = "\n".join(unified_diff(expected, found, "runc's", "ours", n=1, lineterm=""))
    assert not different, different


async def _ends(task: Task, *steps: str | int, argv: tuple[str, ...]) -> list[str]:
    """Start the container, take the steps (a method, or a signal), and say what its end looks like. One that steps are
    taken with has begun by then: the engine's process before it has handlers of its own."""
    pid = await task.create()
    await task.call("Start")
    while argv in (_SLEEPS, _MINDFUL) and not _has_begun(pid):
        await asyncio.sleep(0.005)
    found = []
    for step in steps:
        code = await (task.code(step) if isinstance(step, str) else task.code("Kill", signal=int(step)))
        state = types_task_pb2.Status.Name((await task.call("State")).status)
        # Whether a signal has taken its effect by now is up to the kernel.
        found.append(f"{step}={code}" + (f" {state}" if isinstance(step, str) and step != "Resume" else ""))
    ended = (await task.call("Wait", timeout=5)).exit_status
    return [*found, f"{ended} {(await task.call('State')).exit_status} {(await task.call('Delete')).exit_status}"]


def _has_begun(pid: int) -> bool:
    """Whether it is the sleeper by now, or the shell with its trap, without which the first process of a pid namespace
    would not notice a SIGTERM."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return name == "sleep" or (name == "sh" and pidfd.handles(pid, signal.SIGTERM))


_SLEEPS = ("/bin/sleep", "600")
_MINDFUL = ("/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 600 & wait; done")


@pytest.mark.parametrize(
    ("argv", "steps", "own_pids"),
    [
        (("/bin/sh", "-c", "exit 255"), (), True),
        # Of its own signals the first process of a pid namespace dies of none (pid_namespaces(7)).
        (("/bin/sh", "-c", "kill -SEGV $$"), (), False),
        (("/bin/sh", "-c", "ulimit -c unlimited; kill -ABRT $$"), (), False),
        (_SLEEPS, (signal.SIGHUP,), False),
        (_SLEEPS, (signal.SIGTERM, signal.SIGKILL), True),
        (_MINDFUL, (signal.SIGTERM,), True),
        (_SLEEPS, ("Pause", signal.SIGKILL), True),
        (_MINDFUL, ("Pause", signal.SIGTERM, "Resume"), True),
        (_MINDFUL, (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT), True),
        (_MINDFUL, (signal.SIGSTOP, signal.SIGKILL), True),
    ],
    ids=["255", "segv", "abrt", "hup", "deaf", "term", "paused", "thawed", "continued", "standing"],
)
async def test_ends_are_told_as_the_runc_shim_tells_them(
    argv: tuple[str, ...],
    steps: tuple[str | int, ...],
    own_pids: bool,
    node: Node,
    containerd: Containerd,
    daemon: Daemon,
    clean: LeakCheck,
    place: Path,
) -> None:
    async with runcs(containerd, node, place, *argv, own_pids=own_pids) as peer:
        expected = await _ends(peer, *steps, argv=argv)
    async with ours(daemon, node, place, *argv, own_pids=own_pids) as own:
        assert await _ends(own, *steps, argv=argv) == expected


async def test_what_only_we_refuse(node: Node, daemon: Daemon, clean: LeakCheck, place: Path) -> None:
    async with ours(daemon, node, place, "/bin/sleep", "600") as task:
        await task.create()
        assert await task.code("Create", bundle=str(task.bundle)) == "ALREADY_EXISTS"
        assert await task.code("Checkpoint") == "UNIMPLEMENTED"
        for exec_id in ("", "a/b", "../x"):
            assert await task.exec(exec_id, "/bin/true") == "INVALID_ARGUMENT"
        for spec in (b"", b"[]", b"{"):
            assert await task.code("Exec", exec_id="e", spec=AnyMessage(type_url="x", value=spec)) == "INVALID_ARGUMENT"
        assert await task.code("CloseIO", exec_id="nobody", stdin=True) == "NOT_FOUND"
        assert await task.code("Update") == "UNKNOWN"
        await task.call("Start")
        assert await task.exec("e", "/bin/sleep", "600") == "OK"
        await task.call("Start", exec_id="e")
        assert await task.code("Start", exec_id="e") == "UNKNOWN"
        assert await task.code("Create", id="other", bundle="relative") == "INVALID_ARGUMENT"
        assert await task.code("Create", id="other", bundle="/no/such/bundle") == "INVALID_ARGUMENT"
        assert await task.code("Create", id="other", bundle=str(task.bundle), checkpoint="/x") == "INVALID_ARGUMENT"


async def test_an_exec_that_cannot_start_leaves_no_descriptor(
    node: Node, daemon: Daemon, clean: LeakCheck, place: Path
) -> None:
    def held() -> list[str]:
        links = [link.readlink().name for link in Path(f"/proc/{daemon.pid}/fd").iterdir() if link.is_symlink()]
        return [name for name in links if name in ("in", "out")]

    async with ours(daemon, node, place, "/bin/sleep", "600") as task:
        await task.create()
        await task.call("Start")
        for name in ("in", "out"):
            os.mkfifo(place / name)
        for number, terminal in enumerate((False, True)):
            streams = {"stdin": str(place / "in"), "stdout": str(place / "out"), "terminal": terminal}
            assert await task.exec(f"e{number}", "/no/such", **streams) == "OK"
            for _ in range(2):
                assert await task.code("Start", exec_id=f"e{number}") == "UNKNOWN"
            assert (await task.call("Wait", exec_id=f"e{number}")).exit_status == 255
            assert await task.code("Delete", exec_id=f"e{number}") == "OK"
        assert held() == []


def linux_bundle(directory: Path, node: Node) -> Path:
    """The test guest's bundle, with no network."""
    (directory / "rootfs").mkdir(parents=True)
    (directory / "rootfs" / "vmlinuz").write_bytes(guest.kernel().read_bytes())
    (directory / "rootfs" / "initrd").write_bytes(guest.initrd())
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/vmlinuz"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "annotations": {"io.unikernel.initrd": "/initrd", "io.unikernel.network": "none"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "cgroupsPath": f"{node.cgroup_parent}/linux"},
    }
    (directory / "config.json").write_text(json.dumps(spec))
    return directory


async def test_all_seventeen_methods_answer_for_a_unikernel(
    node: Node, daemon: Daemon, clean: LeakCheck, place: Path
) -> None:
    client = await TtrpcClient.connect(str(daemon.ttrpc_socket))
    task = Task(client, task_v3_pb2, f"linux-{os.getpid()}", linux_bundle(place / "linux", node))
    console = place / "console"
    os.mkfifo(console)
    reading = os.open(console, os.O_RDONLY | os.O_NONBLOCK)
    text = b""
    try:
        pid = await task.create(stdout=str(console))
        assert Path(f"/proc/{pid}/status").exists()
        assert (await task.call("Start")).pid == pid
        monitor = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(monitor["CapEff"], 16) == int(monitor["CapBnd"], 16) == 0
        assert monitor["NoNewPrivs"] == "1"
        for _ in range(200):
            with suppress(BlockingIOError):
                text += os.read(reading, 65536)
            if b"guest: ready" in text:
                break
            await asyncio.sleep(0.05)
        assert b"guest: ready" in text
        assert [process.pid for process in (await task.call("Pids")).processes] == [pid]
        assert (await task.call("Stats")).stats.type_url.startswith("io.containerd.cgroups.v")
        await task.call("Pause")
        assert (await task.call("State")).status == types_task_pb2.PAUSED
        before = _ticks(pid)
        await asyncio.sleep(0.3)
        assert _ticks(pid) == before, "a paused guest uses no time"
        await task.call("Resume")
        assert _limit(pid) != "200"
        await task.call("Update", resources=RESOURCES)
        assert _limit(pid) == "200"
        for method in ("CloseIO", "ResizePty", "Shutdown", "Connect"):
            assert await task.code(method) == "OK"
        with pytest.raises(ShimError, match="one address space") as exec_refused:
            await task.call("Exec", exec_id="e")
        with pytest.raises(ShimError, match="checkpoint") as checkpoint_refused:
            await task.call("Checkpoint")
        assert exec_refused.value.code is checkpoint_refused.value.code is Code.UNIMPLEMENTED
        await task.call("Kill", signal=int(signal.SIGTERM))
        ended = await task.call("Wait")
        assert ended.exit_status in (0, 143)
        assert (await task.call("Delete")).exit_status == ended.exit_status
    finally:
        await _remove(task)
        client.close()
        os.close(reading)


def _limit(pid: int) -> str:
    """The processes that the cgroup of `pid` may have."""
    paths = stats.cgroup_of(pid)
    directory = paths.v1.get("pids", paths.v2)
    assert directory is not None
    return (directory / "pids.max").read_text().strip()


def _ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


async def test_a_terminal_and_standard_input(node: Node, daemon: Daemon, clean: LeakCheck, place: Path) -> None:
    async with ours(daemon, node, place, "/bin/sleep", "600") as task:
        await task.create()
        await task.call("Start")
        for name in ("in", "out"):
            os.mkfifo(place / name)
        out = os.open(place / "out", os.O_RDONLY | os.O_NONBLOCK)
        script = ("/bin/sh", "-c", "stty size; cat; exit 4")
        streams = {"stdin": str(place / "in"), "stdout": str(place / "out")}
        assert await task.exec("tty", *script, terminal=True, **streams) == "OK"
        await task.call("Start", exec_id="tty")
        await task.call("ResizePty", exec_id="tty", width=100, height=40)
        writing = os.open(place / "in", os.O_WRONLY)
        os.write(writing, b"hello\n\x04")
        assert (await task.call("Wait", exec_id="tty")).exit_status == 4
        os.close(writing)
        text = os.read(out, 65536).decode()
        assert "hello" in text
        assert await task.code("Delete", exec_id="tty") == "OK"

        assert await task.exec("plain", "/bin/cat", **streams) == "OK"
        await task.call("Start", exec_id="plain")
        writing = os.open(place / "in", os.O_WRONLY)
        os.write(writing, b"to the end")
        os.close(writing)
        await task.call("CloseIO", exec_id="plain", stdin=True)
        assert (await task.call("Wait", exec_id="plain")).exit_status == 0
        assert os.read(out, 65536) == b"to the end"
        os.close(out)


async def test_an_init_with_a_terminal_is_resized(node: Node, daemon: Daemon, clean: LeakCheck, place: Path) -> None:
    for name in ("in", "out"):
        os.mkfifo(place / name)
    out = os.open(place / "out", os.O_RDONLY | os.O_NONBLOCK)
    argv = ("/bin/sh", "-c", "read line; stty size; test -t 0 && exit 6")
    async with ours(daemon, node, place, *argv, terminal=True) as task:
        await task.create(terminal=True, stdin=str(place / "in"), stdout=str(place / "out"))
        assert (await task.call("State")).terminal
        await task.call("Start")
        for width, height in ((80, 24), (123, 45)):
            await task.call("ResizePty", width=width, height=height)
        writing = os.open(place / "in", os.O_WRONLY)
        os.write(writing, b"go\n")
        assert (await task.call("Wait")).exit_status == 6
        os.close(writing)
        assert b"45 123" in os.read(out, 65536)
    os.close(out)


async def test_an_init_with_three_fifos_reads_to_the_end(
    node: Node, daemon: Daemon, clean: LeakCheck, place: Path
) -> None:
    streams = {f"std{name}": str(place / name) for name in ("in", "out", "err")}
    for path in streams.values():
        os.mkfifo(path)
    out, err = (os.open(streams[name], os.O_RDONLY | os.O_NONBLOCK) for name in ("stdout", "stderr"))
    async with ours(daemon, node, place, "/bin/sh", "-c", "cat; echo bad >&2; exit 7") as task:
        await task.create(**streams)
        await task.call("Start")
        for part in (b"one ", b"two"):
            # containerd may come and go: until CloseIO the end of its writing is not the end of the input.
            writing = os.open(streams["stdin"], os.O_WRONLY)
            os.write(writing, part)
            os.close(writing)
        await asyncio.sleep(0.1)
        assert (await task.call("State")).status == types_task_pb2.RUNNING
        await task.call("CloseIO", stdin=True)
        assert (await task.call("Wait")).exit_status == 7
        # Both end: nobody holds them beyond the exit, or containerd would wait for ever.
        assert (os.read(out, 100), os.read(out, 100)) == (b"one two", b"")
        assert (os.read(err, 100), os.read(err, 100)) == (b"bad\n", b"")
    for descriptor in (out, err):
        os.close(descriptor)


async def test_log_uris(node: Node, daemon: Daemon, clean: LeakCheck, place: Path) -> None:
    logger = place / "logger"
    logger.write_text(f"#!/bin/sh\nexec 5>&-; cat <&3 > {place}/logged; cat <&4 >> {place}/logged\n")
    logger.chmod(0o755)
    for uri, target in ((f"file://{place}/file", place / "file"), (f"binary://{logger}", place / "logged")):
        async with ours(daemon, node, place, "/bin/sh", "-c", "echo out; echo err >&2; exit 5") as task:
            await task.create(stdout=uri, stderr=uri)
            await task.call("Start")
            assert (await task.call("Wait")).exit_status == 5
            for _ in range(100):
                if target.exists() and target.read_text() == "out\nerr\n":
                    break
                await asyncio.sleep(0.02)
            assert target.read_text() == "out\nerr\n"


async def test_calls_at_once_are_taken_one_after_the_other(
    node: Node, daemon: Daemon, clean: LeakCheck, place: Path
) -> None:
    async def at_once(task: Task, method: str, **fields: Any) -> list[str]:
        return sorted(await asyncio.gather(*(task.code(method, **fields) for _ in range(4))))

    async with ours(daemon, node, place, "/bin/sleep", "600") as task:
        created = await at_once(task, "Create", bundle=str(task.bundle))
        assert created == ["ALREADY_EXISTS"] * 3 + ["OK"]
        assert await at_once(task, "Start") == ["OK"] + ["UNKNOWN"] * 3
        assert await task.exec("e", "/bin/sleep", "600") == "OK"
        assert await at_once(task, "Start", exec_id="e") == ["OK"] + ["UNKNOWN"] * 3
        assert await at_once(task, "Pause") == ["OK"] + ["UNKNOWN"] * 3
        assert await at_once(task, "Resume") == ["OK"] + ["UNKNOWN"] * 3
        waits = [asyncio.ensure_future(task.call("Wait", exec_id=exec_id)) for exec_id in ("", "e") * 2]
        await asyncio.sleep(0.05)
        await at_once(task, "Kill", signal=9)
        assert [(await wait).exit_status for wait in waits] == [137] * 4
        assert await at_once(task, "Delete") == ["NOT_FOUND"] * 3 + ["OK"]


@pytest.mark.parametrize("patience", [0.001, 0.01, 0.02, 0.03])
async def test_a_caller_that_gives_up_leaves_a_state_that_is_true(
    patience: float, node: Node, daemon: Daemon, clean: LeakCheck, place: Path
) -> None:
    async with ours(daemon, node, place, "/bin/sleep", "600") as task:
        await task.create()
        with suppress(ShimError):
            await task.call("Start", timeout=patience)
        await asyncio.sleep(0.3)
        state = await task.call("State")
        runs = Path(f"/proc/{state.pid}/comm").read_text().strip() == "sleep"
        assert state.status == (types_task_pb2.RUNNING if runs else types_task_pb2.CREATED)
        if not runs:
            await task.call("Start")
        assert await task.exec("e", "/bin/sleep", "600") == "OK"
        with suppress(ShimError):
            await task.call("Start", exec_id="e", timeout=patience)
        await asyncio.sleep(0.3)
        pids = len((await task.call("Pids")).processes)
        running = (await task.call("State", exec_id="e")).status == types_task_pb2.RUNNING
        assert pids == 1 + running
