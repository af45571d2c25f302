"""The daemon or containerd ends, well or badly, while pods run; what follows is whole, or gone without a trace.

What containerd (2.1.9, and its main branch) makes of a daemon that ends is its own: a Wait that breaks is an exit with
status 255 to its CRI plugin. In the sandbox plugin's mode the pod stays ready and goes on serving, and the container's
next life takes the place of the one given up. In the courier's mode containerd has each task deleted at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.integration import guest, images, ready, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import RESTARTED, LeakCheck
from tests.integration.node import Node
from tests.integration.pseudo import OnTerminal, command_line
from tests.integration.ready import served
from tests.integration.scrape import scraped

pytestmark = pytest.mark.timeout(120)

#: containerd's gRPC dials a daemon that was away only now and then.
eventually = functools.partial(ready.eventually, within=15.0, despite=(grpc.RpcError, LookupError))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node of its own: a daemon that dies is not for other tests."""
    with fresh_node("re") as made:
        yield made


@pytest.fixture(scope="module")
def containerd(node: Node) -> Iterator[Containerd]:
    server = Containerd(node)
    with running(server):
        server.load(images.linux(), tender_double.image())
        yield server


@pytest.fixture(scope="module")
def daemon(node: Node, containerd: Containerd) -> Iterator[Daemon]:
    server = Daemon(node)
    with running(server):
        yield server


@pytest.fixture
def clean(node: Node, containerd: Containerd, daemon: Daemon) -> Iterator[LeakCheck]:
    with LeakCheck(node, containerd, expected=RESTARTED) as check:
        yield check


def linux(pod: Pod, **options: Any) -> str:
    """Start the Linux guest in the pod."""
    return pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS, **options)


def unikernel(node: Node, pod: Pod) -> str:
    """Start a guest that is quick to boot, and wait until it answers."""
    container = pod.run(tender_double.REFERENCE, args=[f"address={pod.address}"])
    eventually(lambda: node.ping(pod.address))
    return container


def monitor(node: Node, pod: Pod) -> int:
    """The pid of the monitor whose guest has the pod's address."""
    for pid in node.processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if f"address={pod.address}".encode() in file.read().split(b"\0"):
                return pid
    raise LookupError(pod.address)


def removed(pod: Pod) -> bool:
    """Remove the pod; raises grpc.RpcError."""
    pod.remove()
    return True


def end(daemon: Daemon, how: str) -> None:
    if how == "SIGTERM":
        assert daemon.stop() == 0
    else:
        daemon.kill()


def counted(daemon: Daemon, what: str) -> dict[str, float]:
    """One of the daemon's counters, by kind of container."""
    found = scraped(daemon)
    return {
        kind: found[f'unikernel_shim_{what}_total{{kind="{kind}"}}'] for kind in ("unikernel", "container", "pause")
    }


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_pods_of_the_sandbox_plugin_survive_the_daemon(
    how: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    pb = cri.messages
    with cri.pod("unikernel") as pod, cri.pod("unikernel") as other:
        sidecar = pod.run(images.BUSYBOX, name="sidecar", command=["/bin/sleep", "3600"])
        container = linux(pod, name="guest")
        ordinary = other.run(images.BUSYBOX)
        boot = served(node, pod.address)["boot"]

        end(daemon, how)
        assert guest.page(node.fetch(pod.address))["boot"] == boot
        assert "an ordinary pod" in node.fetch(other.address)
        time.sleep(1)  # whatever containerd does about it
        daemon.start()
        assert counted(daemon, "adopted") == {"unikernel": 1, "container": 2, "pause": 0}

        assert served(node, pod.address)["boot"] == boot
        for sandbox in (pod, other):
            identifier = sandbox.id
            eventually(lambda: cri.sandbox(identifier).state == pb.SANDBOX_READY)  # noqa: B023 - called at once
        for each in (container, sidecar, ordinary):
            assert cri.wait_exit(each).exit_code == 255
        # As the kubelet does: each container's next life, in the same pod.
        sidecar = pod.run(images.BUSYBOX, name="sidecar", attempt=1, command=["/bin/sleep", "3600"])
        shown = cri.exec(sidecar, "ip", "-4", "address", "show", "eth0").stdout
        assert "inet " not in shown, "the unikernel still has the address"
        # The pinned namespaces are known again.
        assert cri.exec(sidecar, "/bin/busybox", "hostname").stdout == f"{pod.name}\n"
        container = linux(pod, name="guest", attempt=1)
        assert served(node, pod.address)["boot"] != boot
        assert counted(daemon, "restarts") == {"unikernel": 1, "container": 1, "pause": 0}
        cri.stop(container)
        assert cri.wait_exit(container).exit_code in (0, 143)
        assert f"inet {pod.address}/" in cri.exec(sidecar, "ip", "address", "show", "eth0").stdout


@pytest.mark.parametrize(
    ("how", "sandboxer"),
    [("SIGTERM", "unikernel-podsandbox"), ("SIGKILL", "unikernel-podsandbox"), ("SIGKILL", "unikernel-shim")],
)
def test_pods_of_the_courier_end_with_the_daemon_and_leave_nothing(
    how: str, sandboxer: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    with cri.pod(sandboxer) as pod:
        container = unikernel(node, pod)
        sidecar = pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        try:
            end(daemon, how)
            for each in (container, sidecar):
                cri.wait_exit(each)
            eventually(lambda: containerd.netns(pod.address))  # eth0 is whole again
        finally:
            # The couriers have started a daemon; have it replaced by the one that the fixture knows.
            _replace(node, daemon)
    with cri.pod(sandboxer) as pod:
        unikernel(node, pod)


def _replace(node: Node, daemon: Daemon) -> None:
    for pid in daemons(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while daemons(node) and time.monotonic() < deadline:
        time.sleep(0.05)
    daemon.start()


def daemons(node: Node) -> list[int]:
    """Daemons that serve on the node, whoever started them."""
    found = []
    for pid in node.processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"serve" in words and any(word.endswith(b"/unikernel-shim") for word in words):
                found.append(pid)
    return found


def test_the_pause_container_dies_first(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """As when the kernel runs out of memory: containerd knew the namespace by that process only."""
    cri = containerd.cri
    with cri.pod("unikernel-podsandbox") as pod:
        container = unikernel(node, pod)
        containerd.ctr("task", "kill", "--signal", "SIGKILL", pod.id)
        eventually(lambda: cri.sandbox(pod.id).state != cri.messages.SANDBOX_READY)
        cri.stop(container)
        cri.wait_exit(container)
        eventually(lambda: containerd.netns(pod.address))  # eth0 is whole again


def test_a_monitor_that_dies_while_no_daemon_runs(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    pod = cri.pod("unikernel")
    container = unikernel(node, pod)
    found = monitor(node, pod)
    daemon.kill()
    os.kill(found, signal.SIGKILL)
    time.sleep(0.3)
    daemon.start()
    assert cri.wait_exit(container).exit_code in (137, 255)
    eventually(lambda: containerd.netns(pod.address))  # eth0 is whole again
    eventually(lambda: removed(pod))


def test_a_pod_is_to_end_while_no_daemon_runs(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """It cannot, and the CNI plugin is not asked before eth0 is whole; once a daemon is back it can, rules and all."""
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        unikernel(node, pod)
        daemon.kill()
        request = cri.messages.StopPodSandboxRequest(pod_sandbox_id=pod.id)
        with pytest.raises(grpc.RpcError):
            cri.call("StopPodSandbox", request, timeout=3)
        assert f" {pod.address}/" in node.run("iptables-save", "-t", "nat")
        daemon.start()
        eventually(lambda: removed(pod))
    assert f" {pod.address}/" not in node.run("iptables-save", "-t", "nat")


@pytest.mark.parametrize("delay", [0.02, 0.08, 0.15, 0.25, 0.4])
def test_killed_while_it_creates(
    delay: float, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """Whatever the moment: the next daemon finishes or undoes, and the pod works or can be removed."""
    cri = containerd.cri
    pod = cri.pod("unikernel")
    identifier = pod.create(tender_double.REFERENCE, args=[f"address={pod.address}"])

    def start() -> None:
        with contextlib.suppress(grpc.RpcError):
            cri.start(identifier)

    starting = threading.Thread(target=start)
    starting.start()
    time.sleep(delay)
    daemon.kill()
    daemon.start()
    starting.join()
    eventually(lambda: removed(pod))


def test_containerd_is_killed_and_comes_back(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    pb = cri.messages
    with (
        cri.pod("unikernel") as pod,
        cri.pod("unikernel-podsandbox") as second,
        cri.pod("unikernel-shim") as third,
    ):
        pods = (pod, second, third)
        containers = [unikernel(node, each) for each in pods]
        monitors = [monitor(node, each) for each in pods]
        containerd.kill()
        assert all(node.ping(each.address) for each in pods)
        containerd.start()
        assert [monitor(node, each) for each in pods] == monitors
        for each, container in zip(pods, containers, strict=True):
            assert cri.sandbox(each.id).state == pb.SANDBOX_READY
            assert cri.status(container).state == pb.CONTAINER_RUNNING
        cri.stop(containers[0])
        assert cri.wait_exit(containers[0]).exit_code in (0, 143)


@pytest.mark.parametrize("sandboxer", ["unikernel", "unikernel-podsandbox"])
def test_the_namespace_is_taken_away_before_the_delete(
    sandboxer: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    # Routed: the bridge plugin's DEL leaves its masquerade rules where it does not find the namespace.
    with cri.pod(f"{sandboxer}-routed") as pod:
        netns = containerd.netns(pod.address)
        container = unikernel(node, pod)
        subprocess.run(["umount", "--lazy", str(netns)], check=True)
        netns.unlink()
        cri.stop(container)
        cri.wait_exit(container)
        cri.remove(container)


def test_who_looks_on_when_the_daemon_is_killed(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """A console ends and puts the person's terminal back; events go on with the next daemon's, which tell what it
    adopted; the terminal itself is lost, and this is said."""
    with containerd.cri.pod("unikernel") as pod:
        pod.run(tender_double.REFERENCE, args=[f"address={pod.address}", "echo"], tty=True, stdin=True)
        watch = command_line(daemon, "events", "-f", "--pod", pod.name)
        with OnTerminal(command_line(daemon, "console", pod.name)) as console, OnTerminal(watch) as events:
            before = console.mode()
            console.until(lambda: console.mode() != before)
            events.until("started")
            daemon.kill()
            assert console.finish() == 1 and console.mode() == before
            assert "the service went away" in console.text and "Traceback" not in console.text
            events.until("the service is gone")
            daemon.start()
            events.until("adopted")
            events.type(b"\x03")
            assert events.finish() == 130
        assert node.ping(pod.address)
        with OnTerminal(command_line(daemon, "console", pod.name)) as console:
            assert console.finish() == 2 and "the terminal was lost when the service was restarted" in console.text
        # What containerd made of the gap it is still about for a while, and refuses to remove what it is about.
        eventually(lambda: removed(pod))
