"""How containers come to their end: asked, told, killed, or out of memory; and what containerd hears of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from shim import stats
from shim.rpc.ttrpc_client import TtrpcClient
from shim.wire import services_sandbox_v1_pb2 as pb
from shim.wire import task_v3_pb2
from tests.integration import images, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.test_events import address, listening
from tests.integration.test_task import Task, linux_bundle, ours, removed_afterwards

pytestmark = pytest.mark.timeout(60)

#: Python and its libraries, which the tender's double runs on, need some; the guest has the rest of the limit.
LIMIT = 48 << 20
#: Doubles a string until there is no room for it.
GREEDY = ("/bin/sh", "-c", "x=0123456789; while :; do x=$x$x; done")


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd) -> None:
    containerd.load(images.linux(), tender_double.image())


def linux(pod: Pod, *words: str, grace: int | None = None) -> str:
    """Start the Linux guest; `grace` is the pod's terminationGracePeriodSeconds, as the kubelet tells of it."""
    annotations = dict(images.LINUX_ANNOTATIONS)
    if grace is not None:
        annotations["io.kubernetes.pod.terminationGracePeriod"] = str(grace)
    return pod.run(images.LINUX, args=words, annotations=annotations)


def tender(pod: Pod, *words: str, **options: Any) -> str:
    return pod.run(tender_double.REFERENCE, args=words, **options)


def said(pod: Pod, container: str, text: str, *, within: float = 20.0) -> None:
    """Wait until the guest has said it on its console."""
    deadline = time.monotonic() + within
    while text not in pod.log(container):
        assert time.monotonic() < deadline, pod.log(container)
        time.sleep(0.05)


def stopped(pod: Pod, container: str, *, grace: int) -> tuple[float, int]:
    """StopContainer: how many seconds it took, and the exit code."""
    begun = time.monotonic()
    pod.client.stop(container, grace=grace)
    return time.monotonic() - begun, pod.client.wait_exit(container, timeout=2).exit_code


def controller(daemon: Daemon, method: str, request: Any) -> None:
    """A call to the daemon's Sandbox Controller, as containerd makes it."""
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        channel.unary_unary(
            f"/containerd.services.sandbox.v1.Controller/{method}",
            request_serializer=lambda message: message.SerializeToString(),
        )(request, timeout=30, metadata=(("containerd-namespace", "k8s.io"),))


def pid_of(containerd: Containerd, container: str) -> int:
    listed = next(line.split() for line in containerd.ctr("task", "ls").splitlines() if line.startswith(container))
    return int(listed[1])


def test_a_guest_is_asked_first_and_again_while_it_boots(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    def stop_the_sandbox(pod: Pod, container: str) -> tuple[float, int]:
        """As containerd does with a pod whose container it has given up."""
        begun = time.monotonic()
        controller(daemon, "Stop", pb.ControllerStopRequest(sandbox_id=pod.id))
        return time.monotonic() - begun, pod.client.wait_exit(container, timeout=2).exit_code

    def stop_the_container(pod: Pod, container: str) -> tuple[float, int]:
        return stopped(pod, container, grace=20)

    with containerd.cri.pod("unikernel") as one, containerd.cri.pod("unikernel") as other, ThreadPoolExecutor() as run:
        cases = [
            (pod, container, run.submit(stop, pod, container))
            for stop, pod in ((stop_the_container, one), (stop_the_sandbox, other))
            for container in (linux(pod),)
        ]
        for pod, container, stopping in cases:
            took, code = stopping.result()
            assert code == 0, "as any process that ends well on SIGTERM"
            assert took < 12
            assert "guest: power button\nguest: powering off" in pod.log(container)


def test_a_guest_that_takes_no_notice_is_cut_off_within_the_pods_grace(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    with containerd.cri.pod("unikernel") as patient, containerd.cri.pod("unikernel") as hurried:
        first = linux(patient, "harness.deaf", grace=2)
        second = linux(hurried, "harness.deaf", grace=600)
        took, code = stopped(patient, first, grace=10)
        assert 0.9 < took < 2.5, "one second before containerd's SIGKILL, if that came after the pod's two"
        assert code == 128 + signal.SIGTERM, "QEMU says 0, and its guest has not finished"

        # Whoever signals again means it, and SIGKILL is held up by nothing.
        containerd.ctr("task", "kill", "-s", "SIGTERM", second)
        containerd.ctr("task", "kill", "-s", "SIGTERM", second)
        assert hurried.client.wait_exit(second, timeout=2).exit_code == 128 + signal.SIGTERM


def test_whatever_a_monitor_makes_of_sigterm_the_grace_is_the_longest_it_takes(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    with cri.pod("unikernel") as ignores, cri.pod("unikernel") as hangs, cri.pod("unikernel") as stands:
        ignoring = tender(ignores, "term=ignore", "say=here")
        hanging = tender(hangs, "term=ignore", "say=here")
        standing = linux(stands, grace=600)
        for pod, container in ((ignores, ignoring), (hangs, hanging)):
            said(pod, container, "here")
        for container in (hanging, standing):
            os.kill(pid_of(containerd, container), signal.SIGSTOP)
        pods = {ignoring: ignores, hanging: hangs, standing: stands}
        with ThreadPoolExecutor() as threads:
            for took, code in threads.map(lambda container: stopped(pods[container], container, grace=1), pods):
                assert code == 128 + signal.SIGKILL
                assert 0.9 < took < 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_tender_has_no_handler_and_ends_on_any_signal(
    signum: signal.Signals, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    with containerd.cri.pod("unikernel") as pod:
        container = tender(pod, "say=here")
        said(pod, container, "here")
        containerd.ctr("task", "kill", "-s", signum.name, container)
        assert pod.client.wait_exit(container, timeout=2).exit_code == 128 + signum


@pytest.mark.parametrize("handler", ["unikernel", "unikernel-podsandbox"])
def test_out_of_memory_is_the_reason_that_containerd_shows(
    handler: str, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    with containerd.cri.pod(handler) as pod:
        for container in (
            pod.run(images.BUSYBOX, command=GREEDY, memory=LIMIT),
            tender(pod, f"memory={LIMIT >> 19}", memory=LIMIT),
        ):
            status = pod.client.wait_exit(container)
            assert (status.exit_code, status.reason) == (128 + signal.SIGKILL, "OOMKilled")
        # Who is killed otherwise was not out of memory.
        other = pod.run(images.BUSYBOX, command=("/bin/sleep", "600"), memory=LIMIT)
        pod.client.stop(other, grace=0)
        assert pod.client.wait_exit(other).reason == "Error"


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[Node, Daemon]]:
    """A daemon whose containerd is ours, to be restarted."""
    with fresh_node("st") as node:
        daemon = Daemon(node)
        with running(daemon):
            yield node, daemon


@asynccontextmanager
async def monitored(daemon: Daemon, bundle: Path, id: str) -> AsyncIterator[Task]:
    """The Linux guest of a bundle as a task; `client` is to be renewed after a restart."""
    client = await TtrpcClient.connect(str(daemon.ttrpc_socket))
    task = Task(client, task_v3_pb2, id, bundle)
    async with removed_afterwards(task):
        yield task


async def again(daemon: Daemon, task: Task, *, meanwhile: float = 0.0) -> None:
    """End the daemon, as kill -9 does, and start another."""
    daemon.kill()
    assert isinstance(task.client, TtrpcClient)
    task.client.close()
    await asyncio.sleep(meanwhile)
    daemon.start()
    task.client = await TtrpcClient.connect(str(daemon.ttrpc_socket))


def eventfds(daemon: Daemon) -> int:
    """How many the daemon holds open."""
    links = [os.readlink(link) for link in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    return sum("eventfd" in link for link in links)


async def test_the_next_daemon_asks_as_well_also_a_paused_guest(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    console = tmp_path / "console"
    async with (
        listening(address(node)) as receiver,
        monitored(daemon, linux_bundle(tmp_path / "linux", node), f"linux-{node.token}") as task,
    ):
        await task.create(stdout=f"file://{console}")
        await task.call("Start")
        async with asyncio.timeout(20):
            while "guest: ready" not in console.read_text():
                await asyncio.sleep(0.05)
        await again(daemon, task)
        # A paused process has a signal when it is resumed, and so has a guest.
        await task.call("Pause")
        await task.call("Kill", signal=int(signal.SIGTERM))
        await task.call("Resume")
        assert (await task.call("Wait", timeout=5)).exit_status == 0
        assert "guest: power button" in console.read_text()
        await task.call("Delete")
        await receiver.heard("delete")


async def test_out_of_memory_is_told_before_the_exit(alone: tuple[Node, Daemon], tmp_path: Path) -> None:
    node, daemon = alone
    # A child is killed and init lives on; then it is init's turn.
    script = ("/bin/sh", "-c", f"({GREEDY[2]}); read line; {GREEDY[2]}")
    os.mkfifo(tmp_path / "in")
    writing = os.open(tmp_path / "in", os.O_RDWR)
    before = eventfds(daemon)
    async with listening(address(node)) as receiver, ours(daemon, node, tmp_path, *script, memory=LIMIT) as task:
        await task.create(stdin=str(tmp_path / "in"))
        await task.call("Start")
        assert await receiver.heard("oom") == ["create", "start", "oom"]
        os.write(writing, b"\n")
        assert (await task.call("Wait")).exit_status == 128 + signal.SIGKILL
        assert await receiver.heard("exit") == ["create", "start", "oom", "oom", "exit"]
        assert eventfds(daemon) == before
    os.close(writing)


async def test_who_shares_the_pods_limit_is_not_taken_for_who_was_killed(
    alone: tuple[Node, Daemon], tmp_path: Path
) -> None:
    node, daemon = alone
    async with (
        listening(address(node)) as receiver,
        ours(daemon, node, tmp_path, "/bin/sleep", "600") as other,
        ours(daemon, node, tmp_path, *GREEDY) as greedy,
    ):
        pid = await other.create()
        await other.call("Start")
        await greedy.create()
        with limited(pid):
            await greedy.call("Start")
            assert (await greedy.call("Wait")).exit_status == 128 + signal.SIGKILL
        assert await receiver.heard("exit") == ["create", "start", "create", "start", "oom", "exit"]
        await other.call("Kill", signal=int(signal.SIGKILL))
        await other.call("Wait")
        assert await receiver.heard("exit", 2) == ["create", "start", "create", "start", "oom", "exit", "exit"]


@contextmanager
def limited(pid: int) -> Iterator[None]:
    """A limit of memory on the cgroup above that of `pid`, as the kubelet sets one for a pod."""
    paths = stats.cgroup_of(pid)
    files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if "memory" in paths.v1 else ("memory.max",)
    own = paths.v1.get("memory", paths.v2)
    assert own is not None
    found = [own.parent / name for name in files if (own.parent / name).exists()]
    for file in found:
        file.write_text(str(LIMIT))
    try:
        yield
    finally:
        for file in reversed(found):
            file.write_text("-1" if "memory" in paths.v1 else "max")


async def test_who_ran_out_of_memory_while_no_daemon_ran_is_told_of_once(
    alone: tuple[Node, Daemon], tmp_path: Path
) -> None:
    node, daemon = alone
    script = ("/bin/sh", "-c", f"({GREEDY[2]}); read line; ({GREEDY[2]}); read line; exit 3")
    os.mkfifo(tmp_path / "in")
    writing = os.open(tmp_path / "in", os.O_RDWR)
    async with listening(address(node)) as receiver, ours(daemon, node, tmp_path, *script, memory=LIMIT) as task:
        await task.create(stdin=str(tmp_path / "in"))
        await task.call("Start")
        await receiver.heard("oom")
        os.write(writing, b"\n")
        await again(daemon, task, meanwhile=0.5)
        assert await receiver.heard("oom", 2) == ["create", "start", "oom", "oom"]
        os.write(writing, b"\n")
        assert (await task.call("Wait")).exit_status in (3, 255)
        assert await receiver.heard("exit") == ["create", "start", "oom", "oom", "exit"]
    os.close(writing)
