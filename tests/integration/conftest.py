"""Fixtures: a node with a network of its own, the daemon, a real containerd, and a leak check around each test.

A failed test shows the end of containerd's and the daemon's logs and the node's network.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shim.monitors.base import Run
from shim.process.reaper import Reaper
from shim.process.spawn import run as run_program
from tests.integration import tender_double
from tests.integration.containerd import Containerd
from tests.integration.cri import Client, Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import SUBNET, Node
from tests.integration.process import Server

#: What a failed test shows.
_nodes: list[Node] = []
_servers: list[Server] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and items:
        raise pytest.UsageError("the integration tests make namespaces and run containerd: run them as root")


def pytest_sessionstart() -> None:
    # A run that is told to stop (a CI's timeout) must still unmount, and end what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        report.sections += [(f"{server.name}'s log", server.tail()) for server in _servers]
        report.sections += [(f"the network of {node.netns}", describe(node)) for node in _nodes]
    return report


def describe(node: Node) -> str:
    """The node's network as ip(8) shows it."""
    commands = (("-d", "link"), ("address",), ("route", "show", "table", "all"), ("neighbour",))
    return "\n".join(f"$ ip {' '.join(command)}\n{node.run('ip', *command, check=False)}" for command in commands)


@contextmanager
def running(server: Server) -> Iterator[None]:
    """The server, started and stopped; its log is shown if a test fails meanwhile."""
    _servers.append(server)
    try:
        server.start()
        yield
    finally:
        server.stop()
        _servers.remove(server)


@contextmanager
def fresh_node(area: str, subnet: str = SUBNET) -> Iterator[Node]:
    """A node of one's own; its network is shown if a test fails meanwhile."""
    with Node(area, subnet) as made:
        _nodes.append(made)
        try:
            yield made
        finally:
            _nodes.remove(made)


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node that a run's tests share."""
    with fresh_node("t") as made:
        yield made


@pytest.fixture(scope="session")
def containerd(node: Node) -> Iterator[Containerd]:
    """containerd 2.x on that node. It needs the daemon for `unikernel` pods only: ask for the fixture `daemon` too."""
    server = Containerd(node)
    with running(server):
        yield server


@pytest.fixture(scope="session")
def daemon(node: Node) -> Iterator[Daemon]:
    """The daemon on that node, at the address that its containerd knows."""
    server = Daemon(node)
    with running(server):
        yield server


@pytest.fixture(scope="session")
def containerd16() -> Iterator[Containerd]:
    """Debian 12's own containerd 1.6 on a node of its own, whose couriers find their daemon there."""
    with _older("1.6") as server:
        yield server


@pytest.fixture(scope="session")
def containerd17() -> Iterator[Containerd]:
    """containerd 1.7, likewise."""
    with _older("1.7") as server:
        yield server


@contextmanager
def _older(line: str) -> Iterator[Containerd]:
    with fresh_node("old") as node:
        Daemon(node)  # writes the configuration
        server = Containerd(node, line)
        with running(server):
            with server.cri.pod("unikernel-podsandbox"):
                pass  # the first courier starts the daemon
            yield server


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """The daemon's own way to run a program."""
    reaper = Reaper()
    reaper.start()
    yield functools.partial(run_program, reaper)
    reaper.stop()


@pytest.fixture
def clean(node: Node, containerd: Containerd) -> Iterator[LeakCheck]:
    """Fails the test if anything is left behind; ask for it before whatever the test makes."""
    with LeakCheck(node, containerd) as check:
        yield check


@pytest.fixture(scope="module")
def clean_module(node: Node, containerd: Containerd, daemon: Daemon) -> Iterator[LeakCheck]:
    """As `clean`, for what a module's tests share: asked for by the fixture that makes it."""
    with LeakCheck(node, containerd) as check:
        yield check


@pytest.fixture
def cri(containerd: Containerd) -> Client:
    """The kubelet's part."""
    return containerd.cri


@pytest.fixture(scope="module", params=["unikernel", "unikernel-podsandbox"])
def pod(request: pytest.FixtureRequest, containerd: Containerd, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the module's tests share: each removes the containers it makes."""
    containerd.load(tender_double.image())
    with containerd.cri.pod(request.param) as shared:
        yield shared
