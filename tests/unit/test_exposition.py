"""What Prometheus is told, and that nobody pays for it who does not ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client.parser import text_string_to_metric_families

from shim import metrics
from shim.events import Publisher
from shim.network.checking.check import Finding, Outcome, Probe, Report
from shim.sandbox.checks import Checker
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import Status


def finding(probe: Probe, outcome: Outcome) -> Finding:
    return Finding(interface="eth0", family="ipv4", probe=probe, outcome=outcome, sentence="")


def sandbox(name: str, *outcomes: tuple[Probe, Outcome], status: Status = Status.RUNNING) -> SimpleNamespace:
    report = Report(at=1, took=0.0, findings=tuple(finding(*each) for each in outcomes))
    guest = SimpleNamespace(id="c1", checked=report, init=SimpleNamespace(status=status))
    return SimpleNamespace(namespace="k8s.io", pod_name=("default", name) if name else ("", ""), unikernel=guest)


def samples(*held: SimpleNamespace, checker: Checker | None = None, dropped: int = 0) -> dict[tuple[str, ...], float]:
    sandboxes = cast(Sandboxes, SimpleNamespace(all=lambda: list(held)))
    publisher = cast(Publisher, SimpleNamespace(dropped=dropped))
    kind, body = metrics.exposition(sandboxes, checker or Checker(lambda _: None), publisher)("")
    assert kind.startswith("text/plain")
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_value_for_each_proof_that_was_made() -> None:
    found = samples(
        sandbox(
            "web", (Probe.GUEST, Outcome.PROVEN), (Probe.GATEWAY, Outcome.NOT_ASKED), (Probe.ROUTER, Outcome.WRONG)
        ),
        sandbox("", (Probe.GUEST, Outcome.UNANSWERED), (Probe.ROUTER, Outcome.UNANSWERED)),
    )
    name = "unikernel_shim_guest_reachable"
    assert {key: value for key, value in found.items() if key[0] == name} == {
        (name, "ipv4", "eth0", "default", "web", "guest"): 1.0,
        (name, "ipv4", "eth0", "default", "web", "router"): 0.0,
        (name, "ipv4", "eth0", "k8s.io", "c1", "guest"): 0.0,  # a silent router is unknown, and has no value
    }


def test_nothing_is_said_of_a_guest_that_has_ended_or_was_never_checked() -> None:
    never = sandbox("idle")
    never.unikernel.checked = None
    empty = SimpleNamespace(namespace="k8s.io", pod_name=("", ""), unikernel=None)
    over = sandbox("over", (Probe.GUEST, Outcome.PROVEN), status=Status.STOPPED)
    assert not any(key[0] == "unikernel_shim_guest_reachable" for key in samples(never, empty, over))


def test_checks_are_counted() -> None:
    checker = Checker(lambda _: None)
    checker.passed, checker.failed = 3, 1
    found = samples(checker=checker)
    assert found["unikernel_shim_checks_total", "passed"] == 3
    assert found["unikernel_shim_checks_total", "failed"] == 1


def test_dropped_events_are_counted() -> None:
    assert samples(dropped=5)["unikernel_shim_events_dropped_total",] == 5


def test_the_daemon_does_not_load_it_unasked() -> None:
    program = "import sys, shim.daemon; sys.exit('prometheus_client' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
