"""`io_type = "streaming"`: containers' standard streams over the sandbox's address, on real containerd.

With a pause container (`podsandbox`) containerd 2.1.9 has no address for them and refuses to create a container.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration import images, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import RESTARTED, LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually
from tests.integration.websocket import STDIN, STDOUT, Stream

pytestmark = pytest.mark.timeout(60)

HANDLER = "unikernel-streaming"
HANDLERS = (HANDLER, "unikernel-shim-streaming")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node of its own: a containerd that is killed is not for other tests."""
    with fresh_node("io") as made:
        yield made


@pytest.fixture(scope="module")
def containerd(node: Node) -> Iterator[Containerd]:
    server = Containerd(node)
    with running(server):
        server.load(tender_double.image())
        yield server


@pytest.fixture(scope="module")
def daemon(node: Node, containerd: Containerd) -> Iterator[Daemon]:
    server = Daemon(node)
    with running(server):
        yield server


@pytest.fixture
def clean(node: Node, containerd: Containerd, daemon: Daemon) -> Iterator[None]:
    """Nothing is left behind: no FIFO of a stream, nor what every test looks for."""
    with LeakCheck(node, containerd, expected=RESTARTED):
        yield
    assert list((daemon.run_dir / "streams").iterdir()) == []


def descriptors(pid: int) -> int:
    """How many sockets and pipes a process has open."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(entry))
    return sum(link.startswith(("socket:", "pipe:")) for link in links)


def shell(pod: Pod, script: str, **options: Any) -> str:
    """Run an ordinary container with this script."""
    return pod.run(images.BUSYBOX, command=["/bin/sh", "-c", script], **options)


def logged(pod: Pod, container: str) -> dict[str, str]:
    """What the container's log says, by stream, put together again where CRI has cut a line."""
    found: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for line in Path(pod.client.status(container).log_path).read_text().splitlines():
        _, stream, tag, text = line.split(" ", 3)
        found[stream].append(text + ("\n" if tag == "F" else ""))
    return {stream: "".join(parts) for stream, parts in found.items()}


def attached(node: Node, pod: Pod, container: str, *, tty: bool = False) -> Stream:
    """CRI's Attach to all that the container has."""
    request = pod.client.messages.AttachRequest(
        container_id=container, stdin=True, tty=tty, stdout=True, stderr=not tty
    )
    return Stream(node, pod.client.call("Attach", request).url)


def numbers(last: int) -> str:
    return "".join(f"{number}\n" for number in range(1, last + 1))


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_log_has_every_byte_and_stderr_apart(
    handler: str, node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    with containerd.cri.pod(handler) as pod:
        container = shell(pod, "seq 1 400000; seq 1 1000 >&2; exit 3")
        assert containerd.cri.wait_exit(container).exit_code == 3
        found = logged(pod, container)
        assert found["stdout"] == numbers(400_000)
        assert found["stderr"] == numbers(1000)


@pytest.mark.parametrize("handler", HANDLERS)
def test_exec_has_its_own_streams_and_exit_code(
    handler: str, node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    cri = containerd.cri
    with cri.pod(handler) as pod:
        container = shell(pod, "sleep 3600")
        done = cri.exec(container, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
        assert (done.exit_code, done.stdout, done.stderr) == (7, "out\n", "err\n")
        before = descriptors(daemon.pid), descriptors(containerd.pid)
        with ThreadPoolExecutor(8) as pool:
            commands = [("/bin/sh", "-c", f"seq 1 {count}") for count in range(1000, 1016)]
            answers = list(pool.map(lambda command: cri.exec(container, *command).stdout, commands))
        assert answers == [numbers(count) for count in range(1000, 1016)]
        # containerd opens a connection for each stream and does not close it: we do.
        eventually(lambda: descriptors(daemon.pid) <= before[0] and descriptors(containerd.pid) <= before[1])
        script = "head -c 3000000 /dev/urandom > /tmp/data; sha256sum < /tmp/data >&2; base64 < /tmp/data"
        done = cri.exec(container, "/bin/sh", "-c", script)
        data = base64.b64decode(done.stdout)
        assert len(data) == 3_000_000 and hashlib.sha256(data).hexdigest() == done.stderr.split()[0]


def test_stdin_by_attach_reaches_the_process_and_its_end(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    with containerd.cri.pod(HANDLER) as pod:
        container = shell(pod, "cat; echo bye", stdin=True, stdin_once=True)
        with attached(node, pod, container) as connection:
            connection.send(STDIN, b"hello\n")
            connection.until(STDOUT, b"hello\n")
            for number in range(40):  # more than one window
                connection.send(STDIN, f"{number:04}".encode() * 1000 + b"\n")
            connection.until(STDOUT, b"0039" * 1000 + b"\n")
        assert containerd.cri.wait_exit(container).exit_code == 0
        expected = "hello\n" + "".join(f"{number:04}" * 1000 + "\n" for number in range(40)) + "bye\n"
        assert logged(pod, container)["stdout"] == expected


def test_a_terminal(node: Node, containerd: Containerd, daemon: Daemon, clean: None) -> None:
    with containerd.cri.pod(HANDLER) as pod:
        script = "tty; read line; echo got $line; read gone"
        container = shell(pod, script, tty=True, stdin=True)
        with attached(node, pod, container, tty=True) as connection:
            connection.send(STDIN, b"word\n")
            connection.until(STDOUT, b"got word\r\n")
            connection.send(STDIN, b"\x04")  # the terminal's end of file (termios(3), VEOF)
        assert containerd.cri.wait_exit(container).exit_code == 1
        assert logged(pod, container)["stdout"] == "/dev/pts/0\nword\ngot word\n"


def test_a_unikernels_console_and_its_monitors_stderr(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    cri = containerd.cri
    with cri.pod(HANDLER) as pod:
        words = [f"address={pod.address}", "say=up", "complain=oops", "echo"]
        container = pod.run(tender_double.REFERENCE, args=words, stdin=True)
        assert node.ping(pod.address)
        with attached(node, pod, container) as connection:
            connection.send(STDIN, b"to the guest\n")
            connection.until(STDOUT, b"to the guest\n")
        cri.stop(container)
        assert cri.wait_exit(container).exit_code == 143
        assert logged(pod, container) == {"stdout": "up\nto the guest\n", "stderr": "oops\n"}


def test_a_container_that_is_never_started_and_one_that_cannot_be(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    cri = containerd.cri
    with cri.pod(HANDLER) as pod:
        idle = pod.create(images.BUSYBOX, stdin=True)
        with pytest.raises(Exception, match="no-such"):
            pod.run(images.BUSYBOX, command=["/bin/no-such"], stdin=True)
        cri.remove(idle)


def test_containerd_is_killed_and_reads_on_where_it_was(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    """What is written meanwhile waits; the process is held up once its pipe is full, and no byte is lost."""
    cri = containerd.cri
    with cri.pod(HANDLER) as pod:
        # It begins when it is told to, so that nothing is under way when containerd is killed.
        script = "echo begin; trap 'seq 1 60000; exit 5' TERM; while :; do sleep 0.05; done"
        container = shell(pod, script)
        eventually(lambda: logged(pod, container)["stdout"] == "begin\n")
        process = int(containerd.ctr("task", "ps", container).split()[2])
        containerd.kill()
        os.kill(process, signal.SIGTERM)
        time.sleep(0.3)
        assert Path(f"/proc/{process}").exists(), "its output is more than a pipe holds"
        containerd.start()
        assert cri.wait_exit(container).exit_code == 5
        assert logged(pod, container)["stdout"] == f"begin\n{numbers(60_000)}"


def test_a_process_that_ended_while_containerd_was_away(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    cri = containerd.cri
    with cri.pod(HANDLER) as pod:
        container = shell(pod, "trap 'echo last; exit 5' TERM; echo begin; while :; do sleep 0.05; done", stdin=True)
        eventually(lambda: logged(pod, container)["stdout"] == "begin\n")
        process = int(containerd.ctr("task", "ps", container).split()[2])
        containerd.kill()
        os.kill(process, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{process}").exists())
        containerd.start()  # which opens the streams of a task that has ended, and waits for their end
        # 2.1.9 has a task without processes deleted before it asks how it ended (core/runtime/v2/shim_load.go).
        assert cri.wait_exit(container).exit_code == 255


def test_the_daemon_is_killed_and_output_waits_for_the_next(
    node: Node, containerd: Containerd, daemon: Daemon, clean: None
) -> None:
    """containerd takes the break for the container's exit; the process lives on, and its next life follows."""
    cri = containerd.cri
    with cri.pod(HANDLER) as pod:
        container = shell(pod, "while :; do echo line; sleep 0.05; done", name="talker")
        eventually(lambda: logged(pod, container)["stdout"])
        daemon.kill()
        daemon.start()
        assert cri.wait_exit(container).exit_code == 255
        # containerd's gRPC dials a daemon that was away only now and then.
        eventually(lambda: cri.sandbox(pod.id).state == cri.messages.SANDBOX_READY, despite=(grpc.RpcError,))
        assert len(list((daemon.run_dir / "streams").iterdir())) == 2
        container = shell(pod, "echo again; exit 0", name="talker", attempt=1)
        assert cri.wait_exit(container).exit_code == 0
        assert logged(pod, container)["stdout"] == "again\n"
