"""What Prometheus is told, that its own parser reads it, and that nobody pays for it who does not ask."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from shim.events import Queue
from shim.metrics import Reading
from shim.network.checking.check import Outcome, Probe
from shim.process import pidfd
from shim.sandbox.state import SandboxStatus, Status
from tests.unit.metrics.pages import Node, guest, sandbox

ROOT = Path(__file__).parents[3]


async def test_a_value_for_each_proof_that_was_made() -> None:
    web = guest((Probe.GUEST, Outcome.PROVEN), (Probe.GATEWAY, Outcome.NOT_ASKED), (Probe.ROUTER, Outcome.WRONG))
    other = guest((Probe.GUEST, Outcome.UNANSWERED), (Probe.ROUTER, Outcome.UNANSWERED))
    assert await Node(sandbox("web", web), sandbox("", other)).of("unikernel_shim_guest_reachable") == {
        ("ipv4", "eth0", "default", "web", "guest"): 1.0,
        ("ipv4", "eth0", "default", "web", "router"): 0.0,
        ("ipv4", "eth0", "k8s.io", "c1", "guest"): 0.0,  # a silent router is unknown, and has no value
    }


async def test_nothing_is_said_of_a_guest_that_has_ended_or_was_never_checked() -> None:
    never = guest()
    never.checked = None
    over = guest((Probe.GUEST, Outcome.PROVEN), status=Status.STOPPED)
    node = Node(sandbox("idle", never), sandbox("plain"), sandbox("over", over))
    assert await node.of("unikernel_shim_guest_reachable") == {}
    assert await node.of("unikernel_shim_monitor_memory_bytes") == {}


async def test_of_two_pods_of_one_name_the_newer_counts_and_no_series_is_there_twice() -> None:
    pid, started = os.getpid(), pidfd.start_time(os.getpid())
    replaced = sandbox("web", guest((Probe.GUEST, Outcome.UNANSWERED), pid=pid, started=started))
    newer = sandbox("web", guest((Probe.GUEST, Outcome.PROVEN), pid=pid, started=started))
    lines = (await Node(replaced, newer).page()).splitlines()
    (reachable,) = [line for line in lines if line.startswith("unikernel_shim_guest_reachable{")]
    (_,) = [line for line in lines if line.startswith("unikernel_shim_monitor_memory_bytes{")]
    assert reachable.endswith(" 1.0")


async def test_checks_are_counted() -> None:
    node = Node()
    node.checker.passed, node.checker.failed = 3, 1
    assert await node.of("unikernel_shim_checks_total") == {("passed",): 3, ("failed",): 1}


async def test_sandboxes_and_containers_by_state() -> None:
    stopped = sandbox("b", guest(status=Status.STOPPED))
    stopped.status = SandboxStatus.STOPPED
    pause = SimpleNamespace(kind="pause", init=SimpleNamespace(status=Status.RUNNING))
    node = Node(sandbox("a", guest(), pause=pause), stopped)
    assert await node.of("unikernel_shim_sandboxes") == {
        ("created",): 0, ("ready",): 1, ("stopping",): 0, ("stopped",): 1,
    }  # fmt: skip
    found = await node.of("unikernel_shim_containers")
    assert {key: value for key, value in found.items() if value} == {
        ("unikernel", "running"): 1,
        ("unikernel", "stopped"): 1,
        ("pause", "running"): 1,
    }
    assert ("container", "paused") in found, "what there is none of is 0, not absent"


async def test_a_monitors_memory_and_processor_time() -> None:
    """Of this process, which stands for a monitor; the second is gone, and its number is another's."""
    with subprocess.Popen(["sleep", "60"]) as here:
        started = pidfd.start_time(here.pid)
        node = Node(
            sandbox("web", guest(pid=here.pid, started=started)),
            sandbox("gone", guest(pid=here.pid, started=started + 1)),
            sandbox("none", guest(pid=2**22 + 1, started=1)),
        )
        memory = await node.of("unikernel_shim_monitor_memory_bytes")
        cpu = await node.of("unikernel_shim_monitor_cpu_seconds_total")
        here.kill()
    assert list(memory) == list(cpu) == [("qemu", "default", "web")]
    assert memory["qemu", "default", "web"] > 4096 and cpu["qemu", "default", "web"] >= 0


async def test_the_queue_of_events() -> None:
    node = Node()
    waiting = Queue(destination="a", length=2, oldest=time.time_ns() - 3 * 10**9, delivered=7)
    idle = Queue(destination="b", length=0, oldest=0, delivered=1)
    node.publisher.queues, node.publisher.dropped = (lambda: [waiting, idle]), 5
    samples = await node.samples()
    assert samples["unikernel_shim_events_queued", "a"] == 2
    assert 3 <= samples["unikernel_shim_events_oldest_age_seconds", "a"] < 60
    assert samples["unikernel_shim_events_oldest_age_seconds", "b"] == 0
    assert samples["unikernel_shim_events_delivered_total", "a"] == 7
    assert samples["unikernel_shim_events_dropped_total",] == 5


async def test_the_service_itself() -> None:
    samples = await Node().samples()
    assert samples["process_resident_memory_bytes",] > 1 << 20 and samples["process_cpu_seconds_total",] > 0
    [build] = [key for key in samples if key[0] == "unikernel_shim_build_info"]
    assert build[1] == sys.version.split()[0]


async def test_a_loop_that_is_held_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shim.metrics.service._INTERVAL", 0.01)
    node = Node()
    watching = asyncio.create_task(node.metrics.lag.watch())
    await asyncio.sleep(0.005)
    time.sleep(0.1)
    await asyncio.sleep(0.02)
    watching.cancel()
    lag = await node.of("unikernel_shim_loop_lag_seconds_bucket")
    assert lag["+Inf",] - lag["0.05",] == 1


@pytest.mark.parametrize("accept", ["", "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"])
async def test_both_of_prometheus_formats(accept: str) -> None:
    node = Node(sandbox("web", guest((Probe.GUEST, Outcome.PROVEN))))
    kind, body = await node.metrics.expose(accept)
    if "openmetrics" not in accept:
        assert kind.startswith("text/plain")
        return
    families = list(openmetrics(body.decode()))  # type: ignore[no-untyped-call]  # the client's, without types
    assert any(family.name == "unikernel_shim_guest_reachable" for family in families)


async def test_a_node_full_of_pods_is_not_held_up() -> None:
    """The page is written, and the kernel asked, in a thread; one scrape at a time."""
    threads: list[str] = []
    node = Node(sandbox("web", guest()))
    written = node.metrics._written

    def queues() -> list[Queue]:
        threads.append(threading.current_thread().name)
        return []

    def slow(readings: Sequence[Reading], accept: str) -> tuple[str, bytes]:
        threads.append(threading.current_thread().name)
        time.sleep(0.05)
        return written(readings, accept)

    node.publisher.queues = queues
    node.metrics._written = slow  # type: ignore[method-assign]
    scrapes = asyncio.gather(node.page(), node.page())
    turns = 0
    while not scrapes.done():
        await asyncio.sleep(0.001)
        turns += 1
    await scrapes
    here = threading.current_thread().name
    assert turns > 20 and threads[0] == here and threads[1] != here and threads[2] == here


def test_the_daemon_does_not_load_what_is_not_configured() -> None:
    program = (
        "import sys, shim.daemon\n"
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'opentelemetry'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
