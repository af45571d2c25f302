"""What the monitors' processes use. Of the cgroups of pods and containers the kubelet tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shim.metrics.pods import names
from shim.process.usage import usage_of
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

_LABELS = ("namespace", "pod", "monitor")
_ALIVE = (Status.RUNNING, Status.PAUSED)


def usage(sandboxes: Sequence[Sandbox]) -> Callable[[], Iterable[Metric]]:
    """Memory and processor time of every monitor that runs: one small read of /proc for each, in the thread.
    Of two pods of one name the newer one's."""
    running = {
        (*names(sandbox, guest), guest.record.monitor): (guest.init.pid, guest.record.started)
        for sandbox in sandboxes
        if (guest := sandbox.unikernel) is not None and guest.init.status in _ALIVE
    }

    def read() -> Iterable[Metric]:
        memory = GaugeMetricFamily(
            "unikernel_shim_monitor_memory_bytes",
            "Memory of a unikernel's monitor that is in use, its guest's included.",
            labels=_LABELS,
        )
        cpu = CounterMetricFamily(
            "unikernel_shim_monitor_cpu_seconds",
            "Processor time of a unikernel's monitor, its guest's included.",
            labels=_LABELS,
        )
        for labels, (pid, started) in running.items():
            try:
                used = usage_of(pid, started)
            except ProcessLookupError:
                continue  # it ended meanwhile
            memory.add_metric(labels, used.resident)
            cpu.add_metric(labels, used.cpu)
        yield memory
        yield cpu

    return read
