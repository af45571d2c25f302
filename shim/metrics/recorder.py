"""What is recorded as it happens: how long phases and calls take, what fails, what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shim.rpc.status import code_of
from shim.telemetry import Leftover, Phase, Tally

# Seconds. A container is made in tens of milliseconds, one whose images must be made first in many seconds.
_START = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PLUMBING = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_RPC = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)

# What the phases of a start are of, where that is not said by whoever begins them.
_STARTING = {
    Phase.CREATE: "",
    Phase.MOUNT: "any",
    Phase.RECOGNISE: "any",
    Phase.STORAGE: "unikernel",
    Phase.PLUMB: "unikernel",
    Phase.CONFIGURE: "unikernel",
    Phase.ENGINE_CREATE: "",
    Phase.START: "",
    Phase.ENGINE_START: "",
    Phase.BOOT: "unikernel",
    Phase.SETTLE: "unikernel",
}
_PLUMBING_STEPS = {Phase.PLUMB: "all", Phase.LAYOUT: "layout", Phase.PLAN: "plan", Phase.APPLY: "apply"}
_ENDING = (Phase.EXIT, Phase.DISMANTLE, Phase.ENGINE_DELETE, Phase.UNPLUMB, Phase.UNMOUNT, Phase.DISKS)
#: The kinds of containers (`Container.kind`).
KINDS = ("unikernel", "container", "pause")


class Instruments:
    """A `telemetry.Recorder` for Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.starting = Histogram(
            "unikernel_shim_start_duration_seconds",
            "Time from containerd's Create until its Start is answered, by phase and kind of container.",
            ("phase", "kind"),
            buckets=_START,
            registry=registry,
        )
        self.plumbing = Histogram(
            "unikernel_shim_plumbing_duration_seconds",
            "Time that handing a pod's network to a guest takes: all of it, and its steps.",
            ("step",),
            buckets=_PLUMBING,
            registry=registry,
        )
        self.ending = Histogram(
            "unikernel_shim_teardown_duration_seconds",
            "Time from a container's end until nothing of it is left, by phase.",
            ("phase",),
            buckets=_START,
            registry=registry,
        )
        self.failures = Counter(
            "unikernel_shim_phase_failures",
            "Phases that failed; one that is part of another fails both.",
            ("phase",),
            registry=registry,
        )
        self.counts = {
            Tally.RESTARTED: Counter(
                "unikernel_shim_restarts",
                "Containers that took the place of one of their name in the same pod, by kind.",
                ("kind",),
                registry=registry,
            ),
            Tally.ADOPTED: Counter(
                "unikernel_shim_adopted",
                "Containers that this process took over from a former one, by kind.",
                ("kind",),
                registry=registry,
            ),
            Tally.LEFTOVER: Counter(
                "unikernel_shim_leftovers_removed",
                "Things removed that killed services and engines had left behind, by kind.",
                ("kind",),
                registry=registry,
            ),
        }
        self.calls = Histogram(
            "unikernel_shim_rpc_duration_seconds",
            "Time until a call was answered, by method, transport, and the status code of the answer.",
            ("service", "method", "transport", "code"),
            buckets=_RPC,
            registry=registry,
        )
        self.in_flight = Gauge(
            "unikernel_shim_rpcs_in_flight",
            "Calls that wait for their answer.",
            ("service", "method", "transport"),
            registry=registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A rate has a value only where the counter was there before."""
        for phase in Phase:
            self.failures.labels(phase.value)
        for kind in KINDS:
            self.counts[Tally.RESTARTED].labels(kind)
            self.counts[Tally.ADOPTED].labels(kind)
        for left in Leftover:
            self.counts[Tally.LEFTOVER].labels(left.value)

    def phase(self, phase: Phase) -> _Phase:
        """See `telemetry.Recorder`."""
        return _Phase(self, phase)

    def call(self, method: str, transport: str, metadata: Mapping[str, str]) -> _Call:
        """See `telemetry.Recorder`."""
        return _Call(self, method, transport)

    def count(self, what: Tally, kind: str, by: int) -> None:
        """See `telemetry.Recorder`."""
        self.counts[what].labels(kind).inc(by)


class _Phase:
    """A phase that has begun. What fails is counted and not timed: it would make a start look quick."""

    __slots__ = ("_instruments", "_kind", "_phase")

    def __init__(self, instruments: Instruments, phase: Phase) -> None:
        self._instruments, self._phase = instruments, phase
        self._kind = _STARTING.get(phase, "")

    def note(self, notes: Mapping[str, str]) -> None:
        self._kind = notes.get("kind", self._kind)

    def end(self, seconds: float, error: BaseException | None) -> None:
        if error is not None:
            if not isinstance(error, asyncio.CancelledError):  # cut off: nothing of it went wrong
                self._instruments.failures.labels(self._phase.value).inc()
            return
        if self._phase in _STARTING:
            self._instruments.starting.labels(self._phase.value, self._kind).observe(seconds)
        if self._phase in _PLUMBING_STEPS:
            self._instruments.plumbing.labels(_PLUMBING_STEPS[self._phase]).observe(seconds)
        if self._phase in _ENDING:
            self._instruments.ending.labels(self._phase.value).observe(seconds)


class _Call:
    """A call that has begun."""

    __slots__ = ("_in_flight", "_instruments", "_labels")

    def __init__(self, instruments: Instruments, method: str, transport: str) -> None:
        service, _, name = method.rpartition("/")
        self._instruments, self._labels = instruments, (service, name, transport)
        self._in_flight = instruments.in_flight.labels(*self._labels)
        self._in_flight.inc()

    def note(self, notes: Mapping[str, str]) -> None:
        return  # an id as a label would be a series for each pod and method

    def end(self, seconds: float, error: BaseException | None) -> None:
        self._in_flight.dec()
        self._instruments.calls.labels(*self._labels, code_of(error).name).observe(seconds)
