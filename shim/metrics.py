"""What Prometheus is told of this node. Loaded only where metrics are configured.

Values are read off the sandboxes when they are asked for: nothing is counted twice, and what is gone is gone here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from shim.events import Publisher
from shim.network.checking.check import Outcome
from shim.sandbox.checks import Checker
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import Status

_LABELS = ("namespace", "pod", "interface", "family", "probe")


class _Checks(Collector):
    """The last check of every guest that runs, and how many checks there were."""

    def __init__(self, sandboxes: Sandboxes, checker: Checker) -> None:
        self._sandboxes = sandboxes
        self._checker = checker

    def collect(self) -> Iterable[Metric]:
        reachable = GaugeMetricFamily(
            "unikernel_shim_guest_reachable",
            "Whether a guest's last check proved what it asked (1) or something was wrong (0).",
            labels=_LABELS,
        )
        for sandbox in self._sandboxes.all():
            guest = sandbox.unikernel
            if guest is None or guest.checked is None or guest.init.status is Status.STOPPED:
                continue
            # Outside Kubernetes the container's id stands for the pod's name.
            namespace, name = sandbox.pod_name if sandbox.pod_name[1] else (sandbox.namespace, guest.id)
            for finding in guest.checked.findings:
                if finding.outcome is Outcome.PROVEN or finding.failed:
                    labels = (namespace, name, finding.interface, finding.family, finding.probe.value)
                    reachable.add_metric(labels, 0.0 if finding.failed else 1.0)
        yield reachable
        checks = CounterMetricFamily(
            "unikernel_shim_checks", "Checks of guests since the service started, by outcome.", labels=("outcome",)
        )
        checks.add_metric(("passed",), self._checker.passed)
        checks.add_metric(("failed",), self._checker.failed)
        yield checks


class _Events(Collector):
    """What containerd was not told of."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "unikernel_shim_events_dropped",
            "Events that containerd was not told of since the service started; it is told the state that followed.",
            value=self._publisher.dropped,
        )


def exposition(sandboxes: Sandboxes, checker: Checker, publisher: Publisher) -> Callable[[str], tuple[str, bytes]]:
    """From an Accept header to the content type and the metrics in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Checks(sandboxes, checker))
    registry.register(_Events(publisher))

    def expose(accept: str) -> tuple[str, bytes]:
        encode, kind = choose_encoder(accept)
        return kind, encode(registry)

    return expose
