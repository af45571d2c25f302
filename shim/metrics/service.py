"""The service itself: what it is, what it uses, whether its loop keeps up."""

from __future__ import annotations

import asyncio
import platform

from prometheus_client import CollectorRegistry, Histogram, Info, ProcessCollector

from shim import __version__

_INTERVAL = 1.0  # seconds between looks at the loop
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


def register(registry: CollectorRegistry) -> None:
    """Put into `registry` what the service is, and what its process uses, under the names that this has everywhere."""
    ProcessCollector(registry=registry)
    build = Info("unikernel_shim_build", "The service's version, and Python's.", registry=registry)
    build.info({"version": __version__, "python": platform.python_version()})


class LoopLag:
    """How much later than it should something runs on the event loop, looked at once a second."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Histogram(
            "unikernel_shim_loop_lag_seconds",
            "How much later than it should a timer runs on the event loop.",
            buckets=_LAG,
            registry=registry,
        )

    async def watch(self) -> None:
        """Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            self._lag.observe(max(0.0, loop.time() - due))
