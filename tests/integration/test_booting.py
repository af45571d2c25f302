"""A monitor that is told its machine over its control socket, and daemons that are killed while they tell it.

Cloud Hypervisor is a double (doubles/__init__.py says what that proves); its taps are real, and so is who is killed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from shim import faults
from shim.wire import types_task_pb2
from tests.integration import doubles, layouts, small_kernel
from tests.integration.conftest import fresh_node
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.layouts import Site
from tests.integration.leaks import LeakCheck
from tests.integration.life import GUEST, NAMESPACE, Life
from tests.integration.node import Node
from tests.integration.ready import eventually

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        not Path("/dev/kvm").exists(), reason="/dev/kvm is missing, which the monitor is given: not run"
    ),
]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with fresh_node("bo") as made:
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with layouts.ALL["multus"]() as made:
        yield made


@pytest.fixture(scope="module")
def life(node: Node, site: Site) -> Life:
    doubles.place(node.base, "cloud-hypervisor", "v52.0")
    annotations = {"io.unikernel.monitor": "cloud-hypervisor", "io.unikernel.nics": "eth0,net1"}
    serving(node).kill()  # what a daemon keeps for the next one is no leak
    return Life(node, site, guest={"kernel": small_kernel.kernel()}, annotations=annotations)


@pytest.fixture
def clean(node: Node, life: Life, site: Site) -> Iterator[None]:
    """Whatever a test does to the pod, it has its network back and the node nothing of it."""
    untouched = layouts.dump(site.pod)
    life.console.unlink(missing_ok=True)
    with LeakCheck(node, directories=[life.base]) as check:
        yield
        layouts.settle(site.pod)
        assert not (lost := layouts.differences(untouched, layouts.dump(site.pod))), lost
        life.console.unlink(missing_ok=True)
        assert not (left := check.settled()), left


def serving(node: Node, step: int | None = None) -> Daemon:
    """A daemon, to be killed: nobody takes its events. It dies at `step` of its journals; 0 counts them."""
    env = {} if step is None else {faults.VARIABLE: str(step)}
    daemon = Daemon(node, more='\n[engine]\npath = "runc"\n', env=env)
    daemon.log.unlink(missing_ok=True)
    daemon.start()
    return daemon


def created(life: Life, door: Door, *words: str) -> None:
    life.told(*words)
    life.begin(door)
    life.create(door, GUEST)


def says(life: Life, words: str) -> bool:
    return life.console.exists() and words in life.console.read_text().splitlines()


def state(door: Door) -> int:
    return int(door.task("State", id=GUEST).status)


def test_the_taps_are_sent_and_are_the_plans(node: Node, life: Life, clean: None) -> None:
    daemon = serving(node)
    try:
        with Door(daemon.socket, NAMESPACE) as door:
            created(life, door)
            pid = door.task("State", id=GUEST).pid
            assert not [link for link in Path(f"/proc/{pid}/fd").iterdir() if "tun" in str(link.readlink())]
            door.task("Start", id=GUEST)
            assert life.answers()
            assert [line for line in life.console.read_text().splitlines() if line.startswith("tap=")] == [
                "tap=tap0",
                "tap=tap1",
            ]
            taps = [link for link in Path(f"/proc/{daemon.pid}/fd").iterdir() if "tun" in str(link.readlink())]
            assert not taps, "the monitor alone has them"
            life.end(door)
    finally:
        daemon.kill()


@pytest.mark.parametrize("action", ["vm.create", "vm.add-net", "vm.boot"])
def test_killed_while_it_tells_the_next_one_goes_on(node: Node, life: Life, clean: None, action: str) -> None:
    daemon = serving(node)
    with Door(daemon.socket, NAMESPACE) as door, ThreadPoolExecutor() as threads:
        created(life, door, f"stall={action}")
        starting = threads.submit(door.task, "Start", id=GUEST)
        eventually(lambda: says(life, f"stalled at PUT {action}"))
        assert not life.answers()
        daemon.kill()
        with pytest.raises(grpc.RpcError):
            starting.result()
    daemon = serving(node)
    try:
        with Door(daemon.socket, NAMESPACE) as door:
            assert state(door) == types_task_pb2.RUNNING
            eventually(life.answers)
            life.end(door)
    finally:
        daemon.kill()


def test_killed_at_each_step_of_a_start(node: Node, life: Life, clean: None) -> None:
    daemon = serving(node, 0)
    with Door(daemon.socket, NAMESPACE) as door:
        created(life, door)
        before = _steps(daemon)
        door.task("Start", id=GUEST)
        after = _steps(daemon)
        life.end(door)
    daemon.kill()
    assert after - before == 4, "it is written down that it is to run, and that it does; each counts twice"
    for step in range(before + 1, after + 1):
        daemon = serving(node, step)
        with Door(daemon.socket, NAMESPACE) as door, pytest.raises(grpc.RpcError):
            created(life, door)
            door.task("Start", id=GUEST)
        daemon.died()
        daemon = serving(node)
        with Door(daemon.socket, NAMESPACE) as door:
            if step <= before + 2:
                assert state(door) == types_task_pb2.CREATED, "nothing was started"
                door.task("Start", id=GUEST)
            assert state(door) == types_task_pb2.RUNNING
            eventually(life.answers)
            life.end(door)
        daemon.kill()


def _steps(daemon: Daemon) -> int:
    entries = map(json.loads, daemon.log.read_text().splitlines())
    return max(int(entry["number"]) for entry in entries if entry.get("event") == "step")


def test_a_daemon_killed_before_the_start_has_kept_the_taps(node: Node, life: Life, clean: None) -> None:
    daemon = serving(node)
    with Door(daemon.socket, NAMESPACE) as door:
        created(life, door)
    daemon.kill()
    daemon = serving(node)
    try:
        with Door(daemon.socket, NAMESPACE) as door:
            door.task("Start", id=GUEST)
            assert life.answers()
            life.end(door)
    finally:
        daemon.kill()


@pytest.mark.parametrize("action", ["vm.create", "vm.add-net", "vm.boot"])
def test_one_that_dies_is_the_starts_failure(node: Node, life: Life, clean: None, action: str) -> None:
    daemon = serving(node)
    try:
        with Door(daemon.socket, NAMESPACE) as door:
            created(life, door, f"dies={action}")
            with pytest.raises(grpc.RpcError, match=rf"died at once with status 1: .*PUT {action} was too much"):
                door.task("Start", id=GUEST)
            ended(life, door, status=1)
    finally:
        daemon.kill()


def test_a_refusal_and_a_tap_that_is_gone_are_the_starts_failure(node: Node, life: Life, clean: None) -> None:
    daemon = serving(node)
    try:
        with Door(daemon.socket, NAMESPACE) as door:
            created(life, door)
            layouts.ip("link", "delete", "tap1", namespace=life.site.pod)
            with pytest.raises(grpc.RpcError, match="the guest's tap cannot be opened: No such device"):
                door.task("Start", id=GUEST)
            ended(life, door, status=128 + signal.SIGKILL)
            created(life, door, "refuse=vm.boot")
            with pytest.raises(grpc.RpcError, match=r"does not boot its guest: .*vm\.boot: .*500.*no such guest"):
                door.task("Start", id=GUEST)
            ended(life, door, status=128 + signal.SIGKILL)
    finally:
        daemon.kill()


def ended(life: Life, door: Door, *, status: int) -> None:
    """After a failed start: the monitor is gone, and all of it can be removed."""
    eventually(lambda: state(door) == types_task_pb2.STOPPED)
    assert door.task("State", id=GUEST).exit_status == status
    door.task("Delete", id=GUEST)
    life.end(door)
