"""What waits to be told to containerd, and what it was not told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shim.events import Publisher


def queues(publisher: Publisher) -> Callable[[], Iterable[Metric]]:
    """The queue to each containerd, and how many events there were."""
    waiting, dropped, now = publisher.queues(), publisher.dropped, time.time_ns()

    def read() -> Iterable[Metric]:
        length = GaugeMetricFamily(
            "unikernel_shim_events_queued", "Events that wait for containerd to take them.", labels=("destination",)
        )
        age = GaugeMetricFamily(
            "unikernel_shim_events_oldest_age_seconds",
            "For how long the oldest of them has waited, 0 where none does.",
            labels=("destination",),
        )
        delivered = CounterMetricFamily(
            "unikernel_shim_events_delivered", "Events that containerd took.", labels=("destination",)
        )
        for queue in waiting:
            destination = (queue.destination,)
            length.add_metric(destination, queue.length)
            age.add_metric(destination, max(0, now - queue.oldest) / 1e9 if queue.length else 0.0)
            delivered.add_metric(destination, queue.delivered)
        yield length
        yield age
        yield delivered
        yield CounterMetricFamily(
            "unikernel_shim_events_dropped",
            "Events that containerd was not told of since the service started; it is told the state that followed.",
            value=dropped,
        )

    return read
