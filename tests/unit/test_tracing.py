"""Traces: who is whose child, what a span says of an error, and a collector that is not there."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shim import daemon, telemetry, tracing
from shim.config import Config, Tracing
from shim.errors import NodeFault, NotFound
from shim.rpc.service import Call, Running, from_descriptor
from shim.telemetry import Phase, Tally
from tests.unit.rpc.echo import DESCRIPTOR, NAME, Echo

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # the examples of W3C's Trace Context
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    recorder = tracing.Tracing(SimpleSpanProcessor(made))
    with telemetry.recorded_by(recorder):
        yield made
    recorder.shutdown()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """What has ended, by name."""
    return {span.name: span for span in exporter.get_finished_spans()}


def parent(span: ReadableSpan) -> str:
    return "" if span.parent is None else f"{span.parent.span_id:016x}"


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


async def answered(metadata: dict[str, str], method: str = "Echo", word: str = "a") -> None:
    """One call of a service whose handler has a phase in it, and one in a task of its own."""

    class Busy(Echo):
        async def echo(self, request: StringValue, call: Call) -> StringValue:
            call.span.note(container="c1")
            with telemetry.phase(Phase.CREATE, sandbox="s1"):
                await asyncio.ensure_future(self._in_a_task())
            return request

        async def _in_a_task(self) -> None:
            with telemetry.phase(Phase.ENGINE_CREATE, kind="unikernel"):
                await asyncio.sleep(0)

    call = Call(namespace="n", method=f"{NAME}/{method}", transport="ttrpc", metadata=metadata)
    await Running().call(from_descriptor(DESCRIPTOR, Busy()).methods[method], StringValue(value=word), call)


async def test_a_callers_trace_goes_on(exporter: InMemorySpanExporter) -> None:
    await answered({"traceparent": SAMPLED, "containerd-namespace-ttrpc": "k8s.io"})
    found = spans(exporter)
    call, create, engine = found[f"{NAME}/Echo"], found["create"], found["engine_create"]
    assert {trace_of(span) for span in found.values()} == {TRACE}
    assert (parent(call), parent(create), parent(engine)) == (PARENT, id_of(call), id_of(create))
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {
        "rpc.system": "ttrpc", "rpc.service": NAME, "rpc.method": "Echo", "rpc.grpc.status_code": 0,
        "container.id": "c1",
    }  # fmt: skip
    assert dict(create.attributes or {}) == {"unikernel.sandbox": "s1"}
    assert call.status.status_code is StatusCode.UNSET
    assert call.resource.attributes["service.name"] == "unikernel-shim"


async def test_a_callers_decision_not_to_sample_is_kept(exporter: InMemorySpanExporter) -> None:
    await answered({"traceparent": UNSAMPLED})
    assert spans(exporter) == {}


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "00-nonsense"}, {"traceparent": ""}])
async def test_without_a_callers_context_a_trace_begins(
    metadata: dict[str, str], exporter: InMemorySpanExporter
) -> None:
    await answered(metadata)
    call = spans(exporter)[f"{NAME}/Echo"]
    assert call.parent is None and trace_of(call) != TRACE


async def test_errors_are_the_spans_status(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(NotFound):
        await answered({}, "Fail", "not found")
    span = spans(exporter)[f"{NAME}/Fail"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "c1: no such container; list them"
    assert span.attributes and span.attributes["error.type"] == "NotFound"
    assert span.attributes["rpc.grpc.status_code"] == 5
    assert not span.events, "no stack: an operator reads this, or the user whose mistake it was"


async def test_what_is_cut_off_says_so(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(asyncio.CancelledError), telemetry.phase(Phase.MOUNT):
        raise asyncio.CancelledError
    assert spans(exporter)["mount"].status.description == "cut off"


async def test_an_exit_is_in_no_call(exporter: InMemorySpanExporter) -> None:
    """Though the task that waits for it was made in one."""
    with telemetry.phase(Phase.CREATE):
        with telemetry.phase(Phase.EXIT), telemetry.phase(Phase.UNPLUMB):
            pass
        with telemetry.phase(Phase.SETTLE):
            pass
    found = spans(exporter)
    create, exit = found["create"], found["exit"]
    assert exit.parent is None and trace_of(exit) != trace_of(create)
    assert [link.context.span_id for link in exit.links] == [create.context.span_id]
    assert parent(found["unplumb"]) == id_of(exit)
    assert parent(found["settle"]) == id_of(create)


async def test_what_is_counted_is_an_event_of_the_span(exporter: InMemorySpanExporter) -> None:
    telemetry.count(Tally.LEFTOVER, "tap")  # in no span: nowhere to put it
    with telemetry.phase(Phase.DISMANTLE):
        telemetry.count(Tally.LEFTOVER, "cgroup")
    [event] = spans(exporter)["dismantle"].events
    assert (event.name, dict(event.attributes or {})) == ("leftover", {"kind": "cgroup", "by": 1})


async def test_nothing_is_kept_where_nothing_is_to_be() -> None:
    exporter = InMemorySpanExporter()
    with telemetry.recorded_by(tracing.Tracing(SimpleSpanProcessor(exporter), sample=0.0)):
        await answered({})
        assert spans(exporter) == {}
        await answered({"traceparent": SAMPLED})
    assert set(spans(exporter)) == {f"{NAME}/Echo", "create", "engine_create"}


def test_the_name_is_ours_though_containerd_left_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """containerd puts OTEL_SERVICE_NAME into its environment, which its couriers and so their daemons inherit."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "containerd")
    exporter = InMemorySpanExporter()
    recorder = tracing.Tracing(SimpleSpanProcessor(exporter), more={"service.instance.id": "k8s.io/s1"})
    recorder.phase(Phase.MOUNT).end(0.1, None)
    resource = spans(exporter)["mount"].resource.attributes
    assert (resource["service.name"], resource["service.instance.id"]) == ("unikernel-shim", "k8s.io/s1")


async def test_opentelemetrys_own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that a courier started may have inherited it from containerd."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    exporter = InMemorySpanExporter()
    with telemetry.recorded_by(tracing.Tracing(SimpleSpanProcessor(exporter))):
        await answered({"traceparent": SAMPLED})
        with telemetry.phase(Phase.EXIT):
            telemetry.count(Tally.LEFTOVER, "tap")
    assert spans(exporter) == {}


def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []

    class Log:
        def warning(self, event: str, **more: Any) -> None:
            lines.append({"event": event, **more})

        info = warning

    monkeypatch.setattr(tracing, "_log", Log())
    return lines


def test_complaints_are_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, now = told(monkeypatch), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    logger = logging.Logger("any")
    logger.addHandler(tracing.Complaints())
    for seconds in (0, 1, 30, 61, 61):
        now[0] = 1000.0 + seconds
        logger.error("no answer from %s", "x")
    assert [(line["why"], line["unsaid"]) for line in lines] == [("no answer from x", 0), ("no answer from x", 2)]


async def test_a_collector_that_is_not_there_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(monkeypatch)
    collector = tracing.Collector(Tracing(endpoint="http://127.0.0.1:9"))  # discard, where nobody listens
    with telemetry.recorded_by(collector.tracing):
        began = time.monotonic()
        for _ in range(100):
            await answered({})
        assert time.monotonic() - began < 1
    began = time.monotonic()
    await collector.close(0.2)
    assert time.monotonic() - began < 2
    await asyncio.sleep(0.05)
    assert [line["event"] for line in lines].count("spans cannot be sent") <= 1
    handlers = logging.getLogger("opentelemetry").handlers
    assert handlers and not any(isinstance(handler, tracing.Complaints) for handler in handlers)


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "shim.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(NodeFault, match=r"tracing\.endpoint: .* not installed; install opentelemetry-sdk"):
        daemon._collector(Config(tracing=Tracing(endpoint="http://127.0.0.1:4317")), None)
