"""A page of metrics as Prometheus' own client reads it, and stand-ins for the pods that it tells of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from shim.events import Publisher
from shim.metrics import Metrics
from shim.network.checking.check import Finding, Outcome, Probe, Report
from shim.sandbox.checks import Checker
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import SandboxStatus, Status

#: A sample by its name and its labels' values, in the order of their names.
Samples = dict[tuple[str, ...], float]


def finding(probe: Probe, outcome: Outcome) -> Finding:
    return Finding(interface="eth0", family="ipv4", probe=probe, outcome=outcome, sentence="")


def guest(
    *outcomes: tuple[Probe, Outcome], status: Status = Status.RUNNING, pid: int = 0, started: int = 0
) -> SimpleNamespace:
    """A unikernel with a last check that found `outcomes`."""
    return SimpleNamespace(
        id="c1",
        kind="unikernel",
        checked=Report(at=1, took=0.0, findings=tuple(finding(*each) for each in outcomes)),
        init=SimpleNamespace(status=status, pid=pid),
        record=SimpleNamespace(unikernel=True, monitor="qemu", started=started),
    )


def sandbox(name: str, unikernel: SimpleNamespace | None = None, **more: SimpleNamespace) -> SimpleNamespace:
    """A pod `default/NAME`, or one that nobody named; `more` are its other containers."""
    containers = dict(more) if unikernel is None else {"c1": unikernel, **more}
    return SimpleNamespace(
        namespace="k8s.io",
        pod_name=("default", name) if name else ("", ""),
        status=SandboxStatus.READY,
        unikernel=unikernel,
        containers=containers,
    )


class Node:
    """What metrics are of: `sandboxes`, the `checker` and the events' `publisher`."""

    def __init__(self, *held: SimpleNamespace) -> None:
        self.sandboxes = list(held)
        self.checker = Checker(lambda _: None)
        self.publisher: Any = SimpleNamespace(dropped=0, queues=list)
        self.metrics = Metrics()
        sandboxes = cast(Sandboxes, SimpleNamespace(all=lambda: list(self.sandboxes)))
        self.metrics.of(sandboxes, self.checker, cast(Publisher, self.publisher))

    async def page(self, accept: str = "") -> str:
        """The page."""
        return (await self.metrics.expose(accept))[1].decode()

    async def samples(self) -> Samples:
        """Every sample on it."""
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(await self.page())
            for sample in family.samples
        }

    async def of(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one name, by their labels' values."""
        return {key[1:]: value for key, value in (await self.samples()).items() if key[0] == name}
