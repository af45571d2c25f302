"""What a pod costs, beside runc's on the same containerd and CNI in the same run. Prints ratios; judges nothing.

Runs are interleaved, so that a machine whose speed drifts does not favour either. `make bench` shows the output.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.bench import measuring
from shim.rpc.ttrpc_client import TtrpcClient
from shim.wire import task_v3_pb2
from tests.integration import images, paths
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.node import Node

pytestmark = pytest.mark.timeout(300)

_ROUNDS = 12


class Bench:
    """Two series measured in turn."""

    def __init__(self, title: str, unit: str = "ms") -> None:
        self.title, self.unit = title, unit
        self.series: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.series.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    def show(self, ours: str, peer: str) -> None:
        """Median and worst of both, and the ratio of the medians."""
        print(f"\n{self.title}")
        for name in (ours, peer):
            values = self.series[name]
            print(f"  {name:<28} median {statistics.median(values):8.2f} {self.unit}  worst {max(values):8.2f}")
        ratio = statistics.median(self.series[ours]) / statistics.median(self.series[peer])
        print(f"  ratio                        {ratio:.2f}")


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Node, Containerd, Daemon]]:
    with fresh_node("bench") as node:
        daemon, server = Daemon(node), Containerd(node)
        with running(daemon), running(server):
            server.load(images.linux())
            yield node, server, daemon


def test_a_pods_start_and_end(place: tuple[Node, Containerd, Daemon]) -> None:
    _, server, _ = place
    start, end = Bench("RunPodSandbox + CreateContainer + StartContainer"), Bench("StopPodSandbox + RemovePodSandbox")
    kinds: dict[str, Callable[[str], None]] = {}

    def pod(name: str, handler: str, image: str, annotations: dict[str, str]) -> None:
        with start.timed(name):
            made = server.cri.pod(handler)
            made.run(image, annotations=annotations, **({"command": ["/bin/sleep", "3600"]} if not annotations else {}))
        with end.timed(name):
            made.remove()

    kinds["runc"] = lambda name: pod(name, "runc", images.BUSYBOX, {})
    kinds["ours, ordinary container"] = lambda name: pod(name, "unikernel", images.BUSYBOX, {})
    kinds["ours, Linux under QEMU"] = lambda name: pod(name, "unikernel", images.LINUX, images.LINUX_ANNOTATIONS)
    for _ in range(_ROUNDS):
        for name, run in kinds.items():
            run(name)
    for bench in (start, end):
        bench.show("ours, ordinary container", "runc")
        bench.show("ours, Linux under QEMU", "runc")


def test_the_courier(place: tuple[Node, Containerd, Daemon]) -> None:
    _, _, daemon = place
    environment = {"UNIKERNEL_SHIM_CONFIG": str(daemon.config), "PATH": "/usr/bin:/bin"}
    measuring.courier(Path(paths.COURIER), 60, environment).show()


def test_a_state_call(place: tuple[Node, Containerd, Daemon]) -> None:
    _, server, daemon = place
    with server.cri.pod("unikernel") as pod:
        container = pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        values = asyncio.run(_states(str(daemon.ttrpc_socket), container, 2000))
    values.sort()
    print("\nTask.State over ttrpc, one client")
    print(f"  p50 {values[len(values) // 2] * 1e6:.0f} us  p99 {values[len(values) * 99 // 100] * 1e6:.0f} us")
    status = Path(f"/proc/{_pid(daemon)}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Pss:"))
    print(f"daemon's PSS {pss / 1024:.1f} MB on {sys.implementation.name} {sys.version.split()[0]}")


async def _states(address: str, container: str, count: int) -> list[float]:
    client = await TtrpcClient.connect(address)
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await client.call(
            "containerd.task.v3.Task",
            "State",
            task_v3_pb2.StateRequest(id=container),
            task_v3_pb2.StateResponse,
            namespace="k8s.io",
        )
        found.append(time.perf_counter() - began)
    client.close()
    return found


def _pid(daemon: Daemon) -> int:
    """The daemon's own pid: `nsenter` has become it."""
    return daemon.pid
