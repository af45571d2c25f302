"""CRI's exec, attach and port forwarding: what a unikernel can have of them, and what containers beside it."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from tests.integration import images
from tests.integration.containerd import Containerd
from tests.integration.cri import Client, Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.tender_double import REFERENCE
from tests.integration.websocket import DATA, ERROR, OUTCOME, STDIN, STDOUT, Stream


def streamed(node: Node, cri: Client, method: str, query: str = "", **fields: Any) -> Stream:
    """The connection that Exec, Attach or PortForward points to."""
    request = getattr(cri.messages, f"{method}Request")(**fields)
    return Stream(node, cri.call(method, request).url, query=query)


def outcome(stream: Stream) -> dict[str, Any]:
    """How an exec ended (meta/v1 Status), read to its end."""
    found: dict[str, Any] = json.loads(stream.to_the_end()[OUTCOME])
    return found


def test_nothing_is_executed_in_a_unikernel(pod: Pod, cri: Client) -> None:
    """ExecSync is refused with the reason: one address space, no processes."""
    with pod.running(REFERENCE) as container:
        with pytest.raises(grpc.RpcError, match="one address space"):
            cri.exec(container, "/bin/true")
        assert cri.status(container).state == cri.messages.CONTAINER_RUNNING


def test_a_stream_into_a_unikernel_ends_with_the_reason(pod: Pod, node: Node, cri: Client) -> None:
    """`kubectl exec` shows why there is nothing to execute."""
    with (
        pod.running(REFERENCE) as container,
        streamed(node, cri, "Exec", container_id=container, cmd=["/bin/sh"], stdout=True, stderr=True) as stream,
    ):
        failed = outcome(stream)
        assert failed["status"] == "Failure" and "one address space" in failed["message"]


def test_a_sidecar_executes_and_answers(pod: Pod, cri: Client) -> None:
    """ExecSync in an ordinary container beside the unikernel gives both outputs and the exit code."""
    with pod.running(REFERENCE), pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as sidecar:
        output = cri.exec(sidecar, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
        assert (output.exit_code, output.stdout, output.stderr) == (7, "out\n", "err\n")


def test_an_exec_that_takes_too_long_is_ended(pod: Pod, cri: Client) -> None:
    """ExecSync's timeout kills the command and is told as such."""
    with pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as sidecar:
        with pytest.raises(grpc.RpcError) as refused:
            cri.exec(sidecar, "/bin/sleep", "500", timeout=1)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        listed = cri.exec(sidecar, "/bin/sh", "-c", "grep -l [s]leep.500 /proc/[0-9]*/cmdline; echo done").stdout
        assert listed.split() == ["done"]


def test_a_command_is_streamed(pod: Pod, node: Node, cri: Client) -> None:
    """Exec without terminal and input in a sidecar: its output, and how it ended."""
    with pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as sidecar:
        command = ["/bin/sh", "-c", "echo said; exit 5"]
        with streamed(node, cri, "Exec", container_id=sidecar, cmd=command, stdout=True, stderr=True) as stream:
            failed = outcome(stream)
        assert stream.received[STDOUT] == b"said\n"
        assert failed["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]


def test_a_shell_is_streamed(pod: Pod, node: Node, cri: Client) -> None:
    """Exec with terminal and input in a sidecar: what is typed is echoed and answered."""
    with (
        pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as sidecar,
        streamed(node, cri, "Exec", container_id=sidecar, cmd=["/bin/sh"], stdin=True, stdout=True, tty=True) as stream,
    ):
        stream.send(STDIN, b"echo $((6 * 7))\n")
        assert b"6 * 7" in stream.until(STDOUT, b"42\r\n")
        stream.send(STDIN, b"exit\n")
        assert outcome(stream)["status"] == "Success"


def test_who_attaches_hears_the_guest_and_is_heard(pod: Pod, node: Node, cri: Client) -> None:
    """Attach to a unikernel is its console: what it says comes, and what is typed it gets, where it has stdin."""
    with (
        pod.running(REFERENCE, args=["echo"], stdin=True) as container,
        streamed(node, cri, "Attach", container_id=container, stdin=True, stdout=True, stderr=True) as stream,
    ):
        stream.send(STDIN, b"hello, guest\n")
        assert stream.until(STDOUT, b"hello, guest\n") == b"hello, guest\n"


def test_what_has_ended_cannot_be_attached_to(pod: Pod, cri: Client) -> None:
    """Attach and Exec fail for a container that has ended."""
    with pod.running(REFERENCE) as container:
        cri.stop(container)
        for method in ("Attach", "Exec"):
            request = getattr(cri.messages, f"{method}Request")(container_id=container, stdout=True)
            with pytest.raises(grpc.RpcError, match="CONTAINER_EXITED"):
                cri.call(method, request)


_SERVE = "echo forwarded > /tmp/index.html; exec httpd -f -p 8081 -h /tmp"
_READY = "until fetch 127.0.0.1 / 8081; do sleep 0.05; done"


def test_a_port_is_forwarded_to_a_sidecar(pod: Pod, node: Node, cri: Client) -> None:
    """PortForward reaches what listens at localhost in the pod's namespace, beside the unikernel."""
    with (
        pod.running(REFERENCE, args=[f"address={pod.address}"]),
        pod.running(images.BUSYBOX, command=["/bin/sh", "-c", _SERVE]) as sidecar,
    ):
        cri.exec(sidecar, "/bin/sh", "-c", _READY)
        with streamed(node, cri, "PortForward", "port=8081", pod_sandbox_id=pod.id, port=[8081]) as stream:
            stream.send(DATA, b"GET / HTTP/1.0\r\n\r\n")
            assert stream.until(DATA, b"forwarded").startswith((8081).to_bytes(2, "little") + b"HTTP/1.")


def test_a_port_of_the_unikernel_is_not_forwarded_and_this_is_said(pod: Pod, node: Node, cri: Client) -> None:
    """containerd forwards to localhost of the pod's namespace, and the guest is not there: refused, nothing hangs."""
    with (
        pod.running(REFERENCE, args=[f"address={pod.address}"]),
        streamed(node, cri, "PortForward", "port=7", pod_sandbox_id=pod.id, port=[7]) as stream,
    ):
        assert b"connection refused" in stream.to_the_end()[ERROR]


def test_a_port_is_forwarded_in_the_nodes_network(
    node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """PortForward to a pod on the host's network reaches what listens at the node's localhost."""
    cri = containerd.cri
    with cri.pod("unikernel", host_network=True) as pod:
        sidecar = pod.run(images.BUSYBOX, command=["/bin/sh", "-c", _SERVE])
        cri.exec(sidecar, "/bin/sh", "-c", _READY)
        with streamed(node, cri, "PortForward", "port=8081", pod_sandbox_id=pod.id, port=[8081]) as stream:
            stream.send(DATA, b"GET / HTTP/1.0\r\n\r\n")
            stream.until(DATA, b"forwarded")
