"""A collector of traces: OTLP over gRPC, as OpenTelemetry's own, on a node's loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.integration.layouts.namespaces import within
from tests.integration.node import Node


class Received:
    """One span. `service` is whose it is, `trace`, `id` and `parent` are in hexadecimal."""

    def __init__(self, service: str, span: Any) -> None:
        self.service, self.name = service, str(span.name)
        self.trace, self.id, self.parent = (part.hex() for part in (span.trace_id, span.span_id, span.parent_span_id))
        self.attributes = {each.key: _value(each.value) for each in span.attributes}
        self.error = str(span.status.message)
        self.links = [link.trace_id.hex() for link in span.links]

    def __repr__(self) -> str:
        return f"{self.service} {self.name} trace={self.trace[:8]} id={self.id} parent={self.parent}"


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all that it is sent; a context manager."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._arrived = threading.Condition()
        self._spans: list[Received] = []
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.endpoint = ""

    def __enter__(self) -> Collector:
        # gRPC makes the socket in this call, and serves it from wherever it likes.
        port = within(self._node.netns, lambda: self._server.add_insecure_port("127.0.0.1:0"))
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(1).wait()

    def Export(self, request: Any, context: Any) -> Any:
        """Called by the exporters."""
        with self._arrived:
            for part in request.resource_spans:
                about = {each.key: _value(each.value) for each in part.resource.attributes}
                for scope in part.scope_spans:
                    self._spans += [Received(about["service.name"], span) for span in scope.spans]
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait(self, found: Callable[[Sequence[Received]], list[Received]], *, within: float = 10.0) -> list[Received]:
        """What `found` finds among all spans, once that is something. Raises AssertionError with all that came."""
        deadline = time.monotonic() + within
        with self._arrived:
            while not (spans := found(self._spans)):
                left = deadline - time.monotonic()
                assert left > 0, "\n".join(["it has not come:", *map(repr, self._spans)])
                self._arrived.wait(left)
            return spans
