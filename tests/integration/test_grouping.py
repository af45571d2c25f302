"""A daemon for each pod: one dies and takes nobody along, and what a pod leaves is nothing, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shim.config import Config
from shim.wire import task_v2_pb2
from tests.integration import images, paths, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.couriers import Place, a_place
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon, environment, place
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.process import answers
from tests.integration.ready import eventually

pytestmark = pytest.mark.timeout(60)

GROUPED = 'grouping = "pod"\n'


class Grouped:
    """A node where no daemon runs, and a containerd whose couriers start one for each pod."""

    def __init__(self, node: Node, line: str) -> None:
        self.node = node
        self.settings = Daemon(node, grouping="pod")
        self.containerd = Containerd(node, line)
        # What the first pod makes for all.
        (self.settings.run_dir / "pods").mkdir(mode=0o700, parents=True)

    def directory(self, pod: str, namespace: str = "k8s.io") -> Path:
        """The run directory of a pod's daemon."""
        return Config(run_dir=self.settings.run_dir).within(f"{namespace}/{pod}").run_dir

    def daemons(self) -> dict[str, int]:
        """The pids of the daemons there are, by pod."""
        found = {}
        for pid in self.node.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"serve" in words:
                    found[words[words.index(b"--pod") + 1].decode()] = pid
        return found

    def left(self) -> list[Path]:
        """Pods' directories that are still there."""
        return list((self.settings.run_dir / "pods").iterdir())

    def pod_with_guest(self, pod: Pod) -> tuple[str, str]:
        """Start a sidecar and a unikernel that answers; their ids."""
        sidecar = pod.run(images.BUSYBOX, name="sidecar", command=["/bin/sleep", "3600"])
        unikernel = pod.run(tender_double.REFERENCE, name="guest", args=[f"address={pod.address}"])
        eventually(lambda: self.node.ping(pod.address))
        return sidecar, unikernel


def never(found: Callable[[], object], within: float = 10.0) -> None:
    """Wait until nothing is found; an AssertionError shows what is."""
    deadline = time.monotonic() + within
    while left := found():
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


both = pytest.mark.parametrize("grouped", ["2", "1.6"], indirect=True, scope="module")
newest = pytest.mark.parametrize("grouped", ["2"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def grouped(request: pytest.FixtureRequest) -> Iterator[Grouped]:
    with fresh_node("gr") as node:
        made = Grouped(node, request.param)
        with running(made.containerd):
            made.containerd.load(tender_double.image())
            yield made


@pytest.fixture
def clean(grouped: Grouped) -> Iterator[LeakCheck]:
    with LeakCheck(grouped.node, grouped.containerd) as check:
        yield check


@pytest.fixture
def fresh() -> Iterator[Place]:
    """Couriers alone."""
    place()
    with a_place(GROUPED) as made:
        yield made


@both
def test_a_daemon_dies_and_its_pod_alone_goes_with_it(grouped: Grouped, clean: LeakCheck) -> None:
    cri = grouped.containerd.cri
    with cri.pod("unikernel-podsandbox") as pod, cri.pod("unikernel-podsandbox") as other:
        mine = grouped.pod_with_guest(pod)
        theirs = grouped.pod_with_guest(other)
        before = grouped.daemons()
        assert set(before) == {f"k8s.io/{pod.id}", f"k8s.io/{other.id}"}
        assert (grouped.directory(pod.id) / "pod").read_text() == f"k8s.io/{pod.id}\n"

        os.kill(before[f"k8s.io/{pod.id}"], signal.SIGKILL)
        eventually(lambda: cri.sandbox(pod.id).state == cri.messages.SANDBOX_NOTREADY)
        eventually(lambda: not grouped.directory(pod.id).exists())
        for container in mine:
            cri.wait_exit(container)
        eventually(lambda: not _of_pod(grouped.node, pod.id))
        grouped.containerd.netns(pod.address)  # eth0 is whole again

        assert grouped.node.ping(other.address)
        survivor = {f"k8s.io/{other.id}": before[f"k8s.io/{other.id}"]}
        eventually(lambda: grouped.daemons() == survivor)
        for container in theirs:
            assert cri.status(container).state == cri.messages.CONTAINER_RUNNING
    eventually(lambda: not grouped.left() and not grouped.daemons())


def _of_pod(node: Node, identifier: str) -> list[int]:
    """Processes in cgroups of the pod's containers."""
    found = []
    for pid in node.processes():
        with contextlib.suppress(OSError):
            if identifier in Path(f"/proc/{pid}/cgroup").read_text():
                found.append(pid)
    return found


@both
def test_containerd_is_killed_with_a_daemon(grouped: Grouped) -> None:
    """What it makes of the pod, it makes of all of it; the other's daemon it finds again."""
    cri = grouped.containerd.cri
    check = LeakCheck(grouped.node, grouped.containerd, grace=0)
    check.__enter__()
    with cri.pod("unikernel-podsandbox") as pod, cri.pod("unikernel-podsandbox") as other:
        grouped.pod_with_guest(pod)
        theirs = grouped.pod_with_guest(other)
        before = grouped.daemons()
        grouped.containerd.kill()
        os.kill(before[f"k8s.io/{pod.id}"], signal.SIGKILL)
        grouped.containerd.start()
        assert grouped.node.ping(other.address)
        assert grouped.daemons()[f"k8s.io/{other.id}"] == before[f"k8s.io/{other.id}"]
        for container in theirs:
            assert cri.status(container).state == cri.messages.CONTAINER_RUNNING
    eventually(lambda: not grouped.left() and not grouped.daemons())
    never(lambda: [line for line in check.settled() if "/containerd --config " not in line])


@newest
def test_people_find_the_daemon_of_a_pod(grouped: Grouped, clean: LeakCheck) -> None:
    """As do couriers that have nothing but a container's id to go by: its bundle is gone."""
    with grouped.containerd.cri.pod("unikernel-podsandbox") as pod:
        sidecar, unikernel = grouped.pod_with_guest(pod)
        command = [str(paths.DAEMON), "inspect", "--json", pod.id]
        env = {**os.environ, **environment(grouped.settings.config)}
        shown = subprocess.run(command, env=env, capture_output=True, check=True, timeout=20)
        assert {held["id"] for held in json.loads(shown.stdout)["containers"]} == {pod.id, sidecar, unikernel}
        command = [str(paths.DAEMON), "topology", "--json", pod.id]
        drawn = subprocess.run(command, env=env, capture_output=True, check=True, timeout=20)
        assert json.loads(drawn.stdout)["plumbed"]

        # And that of every pod.
        (grouped.settings.run_dir / "pods" / "dead").mkdir()
        silent = grouped.settings.run_dir / "pods" / "dead" / "shim.sock"
        silent.touch()
        with grouped.containerd.cri.pod("unikernel-podsandbox") as other:
            listed = subprocess.run(
                [str(paths.DAEMON), "ps", "-q"], env=env, capture_output=True, check=True, timeout=20
            )
            assert listed.stdout.decode().split() == [pod.id, other.id]
            assert "dead/shim.sock does not answer" in listed.stderr.decode()
            told = subprocess.run([str(paths.DAEMON), "events", "--json"], env=env, capture_output=True, check=True)
            events = [json.loads(line) for line in told.stdout.splitlines()]
            assert [each["sandbox"] for each in events if each["container"] in (pod.id, other.id)] == [
                *(2 * [pod.id]), *(2 * [other.id]),
            ]  # fmt: skip
            assert [each["at"] for each in events] == sorted(each["at"] for each in events)
        silent.unlink()
        silent.parent.rmdir()
        eventually(lambda: grouped.left() == [grouped.directory(pod.id)])

        arguments = ["-namespace", "k8s.io", "-id", sidecar, "-bundle", "/none", "delete"]
        deleted = subprocess.run(
            [str(paths.COURIER), *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True
        )
        assert not deleted.returncode, deleted.stderr.decode()
        assert task_v2_pb2.DeleteResponse.FromString(deleted.stdout).exit_status == 137
        grouped.containerd.cri.wait_exit(sidecar)
        assert grouped.left() == [grouped.directory(pod.id)]
        assert grouped.node.ping(pod.address)
    eventually(lambda: not grouped.left() and not grouped.daemons())


@newest
def test_an_id_comes_again_at_once(grouped: Grouped) -> None:
    """Its courier meets the daemon of its former life, which is about to end, or the next."""
    containerd = grouped.containerd
    with LeakCheck(grouped.node, containerd, ids=["again"]):
        for pause in (0.0, 0.3, 0.45, 0.5):
            shown = containerd.ctr(
                *(
                    "run",
                    "--rm",
                    "--runtime",
                    "io.containerd.unikernel.v2",
                    images.BUSYBOX,
                    "again",
                    "/bin/echo",
                    "life",
                )
            )
            assert shown == "life\n"
            time.sleep(pause)
        eventually(lambda: not grouped.left() and not grouped.daemons())


def test_twenty_at_once_start_one_daemon_a_pod(fresh: Place) -> None:
    pods = ("one", "two")
    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(lambda number: fresh.courier("-id", pods[number % 2], "start"), range(20)))
    assert {run.returncode for run in runs} == {0}, runs
    assert len({run.stdout for run in runs}) == len(fresh.daemons()) == 2


def test_couriers_while_a_daemon_ends(fresh: Place) -> None:
    """Whatever the moment, whoever is told an address meets a daemon there, which waits for the container to come."""
    # A daemon lingers for half a second: the moments are around that, for each pod another.
    moments = [0.3 + 0.05 * number for number in range(8)]

    def live(moment: float) -> None:
        name = f"p{moment * 100:.0f}"
        assert fresh.courier("-id", name, "start").returncode == 0
        assert fresh.courier("-id", name, "delete").returncode == 0
        time.sleep(moment)
        run = fresh.courier("-id", name, "start")
        assert run.returncode == 0, run.stderr
        door = Path(json.loads(run.stdout)["address"].removeprefix("unix://"))
        first = fresh.daemon(door)
        time.sleep(1)
        assert first and fresh.daemon(door) == first
        assert fresh.courier("-id", name, "delete").returncode == 0

    with ThreadPoolExecutor(len(moments)) as pool:
        list(pool.map(live, moments))
    eventually(lambda: not fresh.daemons())
    assert not list((fresh.run_dir / "pods").iterdir())


def test_what_concerns_no_pod_leaves_nothing(fresh: Place) -> None:
    assert fresh.courier("-info").returncode == 0
    assert b"../../etc" in fresh.courier("-id", "../../etc", "start").stderr
    assert not fresh.courier("-namespace", "a/b", "-id", "c", "start").stdout
    assert fresh.courier("-id", "unknown", "delete").returncode == 0
    eventually(lambda: not fresh.daemons())
    assert not list((fresh.run_dir / "pods").iterdir())
    assert not answers(fresh.socket)


def test_a_daemon_that_cannot_start_leaves_nothing() -> None:
    for wrong in ("frobnicate = 1\n", '[engine]\npath = "frobnicate"\n'):
        with a_place(GROUPED + wrong) as made:
            run = made.courier("-id", "c", "start")
            assert run.returncode == 1 and b"frobnicate" in run.stderr and b"Traceback" not in run.stderr
            assert not list((made.run_dir / "pods").iterdir())


def test_a_log_that_has_become_large_makes_way(fresh: Place) -> None:
    fresh.run_dir.mkdir(mode=0o700)
    log = fresh.run_dir / "daemon.log"
    with log.open("wb") as file:
        file.truncate((16 << 20) + 1)
    assert fresh.courier("-id", "c", "start").returncode == 0
    assert log.with_name("daemon.log.1").stat().st_size > 16 << 20
    assert b'"sandbox": "c"' in log.read_bytes()
