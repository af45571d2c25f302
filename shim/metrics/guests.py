"""What the last checks of guests found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shim.metrics.pods import names
from shim.network.checking.check import Outcome
from shim.sandbox.checks import Checker
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

_LABELS = ("namespace", "pod", "interface", "family", "probe")


def reachability(sandboxes: Sequence[Sandbox], checker: Checker) -> Callable[[], Iterable[Metric]]:
    """The last check of every guest that runs, and how many checks there were. Of two pods of one name, which there are
    while one is being replaced, the newer one's."""
    reports = {
        names(sandbox, guest): guest.checked
        for sandbox in sandboxes
        if (guest := sandbox.unikernel) is not None and guest.checked is not None
        # What has ended neither answers nor fails to.
        if guest.init.status is not Status.STOPPED
    }
    passed, failed = checker.passed, checker.failed

    def read() -> Iterable[Metric]:
        reachable = GaugeMetricFamily(
            "unikernel_shim_guest_reachable",
            "Whether a guest's last check proved what it asked (1) or something was wrong (0).",
            labels=_LABELS,
        )
        for pod, report in reports.items():
            for finding in report.findings:
                if finding.outcome is Outcome.PROVEN or finding.failed:
                    labels = (*pod, finding.interface, finding.family, finding.probe.value)
                    reachable.add_metric(labels, 0.0 if finding.failed else 1.0)
        yield reachable
        checks = CounterMetricFamily(
            "unikernel_shim_checks", "Checks of guests since the service started, by outcome.", labels=("outcome",)
        )
        checks.add_metric(("passed",), passed)
        checks.add_metric(("failed",), failed)
        yield checks

    return read
