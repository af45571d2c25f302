"""What Prometheus is told of this node. Loaded only where metrics are configured.

What is the case now is read off the sandboxes and the kernel when somebody asks: nothing is counted twice, and what is
gone is gone here too. What happens (phases, calls, restarts) is recorded as it does, as a `telemetry.Recorder`.

A scrape first takes down on the loop what belongs to the loop, which is a copy of some words for each pod; the kernel
is asked and the page written in a thread. So a node full of pods is not held up by whoever looks at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shim.events import Publisher
from shim.metrics import events, guests, monitors, pods, service
from shim.metrics.recorder import Instruments
from shim.sandbox.checks import Checker
from shim.sandbox.sandboxes import Sandboxes

#: Called in a thread: it asks the kernel where it must, and returns what there is to tell.
Reading = Callable[[], Iterable[Metric]]
#: Called on the loop, and takes down what is the loop's.
Source = Callable[[], Reading]


class Metrics:
    """All metrics of this process: `instruments` record what happens, `sources` are asked at each scrape."""

    def __init__(self) -> None:
        # A second series of each, of when it began, would say what process_start_time_seconds says already.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the client's one function without types
        self._own = CollectorRegistry()
        self.instruments = Instruments(self._own)
        self.lag = service.LoopLag(self._own)
        service.register(self._own)
        self._sources: Sequence[Source] = ()
        self._scraping = asyncio.Lock()

    def of(self, sandboxes: Sandboxes, checker: Checker, publisher: Publisher) -> None:
        """Tell of these from now on."""
        self._sources = (
            lambda: pods.states(sandboxes.all()),
            lambda: guests.reachability(sandboxes.all(), checker),
            lambda: monitors.usage(sandboxes.all()),
            lambda: events.queues(publisher),
        )

    async def expose(self, accept: str) -> tuple[str, bytes]:
        """From an Accept header to the content type and the metrics in it; one scrape at a time."""
        async with self._scraping:
            readings = [source() for source in self._sources]
            return await asyncio.to_thread(self._written, readings, accept)

    def _written(self, readings: Sequence[Reading], accept: str) -> tuple[str, bytes]:
        encode, kind = choose_encoder(accept)
        return kind, encode(_Page(self._own, readings))


class _Page(Collector):
    """One scrape's metrics."""

    def __init__(self, own: CollectorRegistry, readings: Sequence[Reading]) -> None:
        self._own, self._readings = own, readings

    def collect(self) -> Iterable[Metric]:
        yield from self._own.collect()
        for reading in self._readings:
            yield from reading()
