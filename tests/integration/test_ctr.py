"""`ctr` on containerd 2.x and on Debian 12's 1.6: each container by the courier, whose first run starts the daemon."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import guest, images
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.ready import served

pytestmark = pytest.mark.timeout(120)

RUNTIME = "io.containerd.unikernel.v2"
NAMESPACE = "tests"
GATEWAY, ADDRESS = "10.99.0.1", "10.99.0.2"


@pytest.fixture(scope="module", params=["1.6", "2"])
def containerd(request: pytest.FixtureRequest) -> Iterator[Containerd]:
    """On a node of its own, with no daemon: the first courier starts it, and the node's end ends it."""
    with fresh_node("ctr") as node:
        Daemon(node)  # writes the configuration that couriers read
        server = Containerd(node, request.param)
        with running(server):
            server.load(images.linux(), images.busybox(), namespace=NAMESPACE)
            # What the first run makes for all: the daemon, and its directories.
            run(server, "first", images.BUSYBOX, "/bin/echo")
            yield server


@pytest.fixture
def name() -> str:
    return f"ctr{uuid.uuid4().hex[:8]}"


@pytest.fixture
def clean(containerd: Containerd, name: str) -> Iterator[LeakCheck]:
    with LeakCheck(containerd.node, containerd, ids=[name]) as check:
        yield check


def options(*more: str, unikernel: bool = False) -> list[str]:
    """The options of `ctr run` for this runtime."""
    annotations = images.LINUX_ANNOTATIONS if unikernel else {}
    given = [word for key, value in annotations.items() for word in ("--annotation", f"{key}={value}")]
    return ["--runtime", RUNTIME, *given, *more]


def run(containerd: Containerd, name: str, image: str, *command: str, more: tuple[str, ...] = ("--rm",)) -> str:
    """`ctr run`; its output. Raises AssertionError where the exit status is not 0."""
    unikernel = image == images.LINUX
    return containerd.ctr("run", *options(*more, unikernel=unikernel), image, name, *command, namespace=NAMESPACE)


def remove(containerd: Containerd, name: str) -> None:
    containerd.ctr("container", "delete", name, namespace=NAMESPACE)


@contextmanager
def pod_namespace(containerd: Containerd, name: str) -> Iterator[Path]:
    """A network namespace with an eth0 of its own on the node: ADDRESS behind GATEWAY."""
    node = containerd.node
    link = f"v{name[3:]}"
    netns = f"{node.token}{name}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        inside = f"/run/netns/{netns}"
        node.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", netns)
        node.run("ip", "address", "add", f"{GATEWAY}/24", "dev", link, "nodad")
        node.run("ip", "link", "set", link, "up")
        for command in (
            ("link", "set", "eth0", "up"),
            ("address", "add", f"{ADDRESS}/24", "dev", "eth0"),
            ("route", "add", "default", "via", GATEWAY),
        ):
            subprocess.run(["nsenter", f"--net={inside}", "ip", *command], check=True)
        yield Path(inside)
        shown = subprocess.run(
            ["nsenter", f"--net={inside}", "ip", "address", "show", "eth0"], capture_output=True, text=True, check=True
        )
        assert f"inet {ADDRESS}/" in shown.stdout, "eth0 was not given back"
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)


def test_an_ordinary_container(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    assert run(containerd, name, images.BUSYBOX, "/bin/echo", "hello") == "hello\n"
    with pytest.raises(AssertionError, match="only stderr"):
        run(containerd, name, images.BUSYBOX, "/bin/sh", "-c", "echo only stderr >&2; exit 3")


def test_exit_codes(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    command = [
        str(containerd.bin / "ctr"),
        *("-a", str(containerd.socket), "-n", NAMESPACE, "run", "--rm"),
        *options(),
        *(images.BUSYBOX, name, "/bin/sh", "-c", "exit 42"),
    ]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 42


def test_exec_kill_and_delete(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    run(containerd, name, images.BUSYBOX, "/bin/sleep", "3600", more=("--detach",))
    shown = containerd.ctr("task", "exec", "--exec-id", "e", name, "/bin/echo", "inside", namespace=NAMESPACE)
    assert shown == "inside\n"
    assert "RUNNING" in containerd.ctr("task", "ls", namespace=NAMESPACE)
    containerd.ctr("task", "kill", "--signal", "SIGKILL", name, namespace=NAMESPACE)
    _delete(containerd, name)


def _delete(containerd: Containerd, name: str) -> None:
    containerd.ctr("task", "delete", "--force", name, namespace=NAMESPACE, check=False)
    assert name not in containerd.ctr("task", "ls", namespace=NAMESPACE)
    remove(containerd, name)


def test_a_unikernel_without_a_network(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    output = run(
        containerd,
        name,
        images.LINUX,
        more=("--rm", "--annotation", f"io.unikernel.cmdline={guest.WORDS} harness.poweroff=1"),
    )
    assert "guest: ready" in output


def test_a_unikernel_in_a_namespace(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    with pod_namespace(containerd, name) as netns:
        run(containerd, name, images.LINUX, more=("--detach", "--with-ns", f"network:{netns}"))
        page = served(containerd.node, ADDRESS)
        assert page["unikernel"] == "yes" and page["address"] == ADDRESS
        containerd.ctr("task", "kill", "--signal", "SIGTERM", name, namespace=NAMESPACE)
        _delete(containerd, name)


def test_a_wrong_wish_is_refused_with_words(containerd: Containerd, name: str, clean: LeakCheck) -> None:
    with pytest.raises(AssertionError, match=r"did you mean io\.unikernel\.kernel"):
        run(containerd, name, images.BUSYBOX, more=("--rm", "--annotation", "io.unikernel.kernal=/x"))
