"""Traces: each call and phase as a span of OpenTelemetry, sent to a collector. Loaded only where that is configured.

A call's span is the child of its caller's, whose context comes in the call's metadata in the W3C's form,
`traceparent`: containerd's clients put it there over gRPC and over ttrpc (github.com/containerd/otelttrpc). So a trace
that begins at containerd's CRI plugin goes on here down to the engine run that executes the monitor.

Spans are sent by a thread of the SDK's. While no collector answers they are dropped, which is said once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shim import __version__, config, log
from shim.errors import Code
from shim.rpc.status import code_of
from shim.telemetry import Phase, Tally
from shim.threads import in_new_thread

_log = log.get(__name__)

# What follows a process's end comes of itself: in no call, and so in a trace of its own, with a link to the one in
# which the container was made.
_APART = (Phase.EXIT,)
_QUIET = 60.0  # seconds between two complaints of the SDK's
_SENDING = 5.0  # seconds that a collector may take for one batch
_LONGEST = 1024  # characters of an error
# OpenTelemetry's names where it has one (semantic conventions, container and RPC); the others are ours.
_NAMES = {"container": "container.id"}


class Tracing:
    """A `telemetry.Recorder` that makes spans."""

    def __init__(self, processor: SpanProcessor, sample: float = 1.0, more: Mapping[str, str] | None = None) -> None:
        """`processor` is where spans go when they have ended. `sample` is the share that is kept of traces that begin
        here; whoever began another has decided. `more` are attributes of this process."""
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=Resource.create(
                {
                    "service.name": "unikernel-shim",
                    "service.version": __version__,
                    "host.name": socket.gethostname(),
                    "process.pid": os.getpid(),
                    **(more or {}),
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("unikernel-shim", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def phase(self, phase: Phase) -> _Recording:
        """See `telemetry.Recorder`."""
        if phase not in _APART:
            return _Recording(self._tracer.start_span(phase.value))
        cause = trace.get_current_span().get_span_context()
        links = [Link(cause)] if cause.is_valid else []
        return _Recording(self._tracer.start_span(phase.value, context=Context(), links=links))

    def call(self, method: str, transport: str, metadata: Mapping[str, str]) -> _Call:
        """See `telemetry.Recorder`."""
        service, _, name = method.rpartition("/")
        return _Call(
            self._tracer.start_span(
                method,
                context=self._propagator.extract(metadata, context=Context()),
                kind=SpanKind.SERVER,
                attributes={"rpc.system": transport, "rpc.service": service, "rpc.method": name},
            )
        )

    def count(self, what: Tally, kind: str, by: int) -> None:
        """See `telemetry.Recorder`."""
        trace.get_current_span().add_event(what.value, {"kind": kind, "by": by})

    def shutdown(self) -> None:
        """Send what has ended, and stop; blocks."""
        self._provider.shutdown()


class _Recording:
    """A span that has begun, and is the task's current one until it ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token = contexts.attach(trace.set_span_in_context(span))

    def note(self, notes: Mapping[str, str]) -> None:
        """See `telemetry.Recording`."""
        for name, value in notes.items():
            self._span.set_attribute(_NAMES.get(name, f"unikernel.{name}"), value)

    def end(self, seconds: float, error: BaseException | None) -> None:
        """See `telemetry.Recording`."""
        contexts.detach(self._token)
        if error is not None:
            # Its words and no stack: whoever reads traces is an operator, and may be the user whose mistake it was.
            words = "cut off" if isinstance(error, asyncio.CancelledError) else str(error)
            self._span.set_status(Status(StatusCode.ERROR, words[:_LONGEST]))
            self._span.set_attribute("error.type", type(error).__name__)
        self._span.end()


class _Call(_Recording):
    """A call's span. Every code but OK is a failure here, as it is in containerd's own spans of these calls."""

    __slots__ = ()

    def end(self, seconds: float, error: BaseException | None) -> None:
        """See `telemetry.Recording`."""
        code: Code = code_of(error)
        self._span.set_attribute("rpc.grpc.status_code", code.value)
        super().end(seconds, error)


class Complaints(logging.Handler):
    """What OpenTelemetry's own loggers say, as lines of ours: one a minute, which says how many there were."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet_until = 0.0
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called in whatever thread complains, under the handler's lock."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        _log.warning("spans cannot be sent", why=record.getMessage(), unsaid=self._unsaid)
        self._quiet_until, self._unsaid = now + _QUIET, 0


class Collector:
    """Tracing to a collector: `tracing` is the recorder; `close` ends it."""

    def __init__(self, settings: config.Tracing, more: Mapping[str, str] | None = None) -> None:
        """Nothing is asked of the collector here: one that is not there yet is met later. `more` is `Tracing`'s."""
        self._logger = logging.getLogger("opentelemetry")
        self._complaints = Complaints()
        self._logger.addHandler(self._complaints)
        self._logger.propagate = False
        self._exporter = OTLPSpanExporter(
            endpoint=settings.endpoint, insecure=settings.endpoint.startswith("http://"), timeout=_SENDING
        )
        self.tracing = Tracing(BatchSpanProcessor(self._exporter), settings.sample, more)
        _log.info("tracing", endpoint=settings.endpoint, sample=settings.sample)

    async def close(self, grace: float) -> None:
        """Send what is left within `grace` seconds; beyond that it is lost."""
        ended = in_new_thread(self.tracing.shutdown, name="tracing")
        _, late = await asyncio.wait([ended], timeout=grace)
        if late:
            _log.warning("the last spans are lost: no collector took them in time")
            # Ends the attempt that is under way; the thread goes with the process.
            self._exporter.shutdown()
        # What it still complains of has been said.
        self._logger.removeHandler(self._complaints)
        self._logger.addHandler(logging.NullHandler())
