"""One trace from the call to containerd's CRI plugin to the execution of the monitor: real containerd, real spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc
import pytest

from tests.integration import tender_double
from tests.integration.collector import Collector, Received
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.doors import Door

#: Every tenth of a second spans go out, of both programs; by default every five seconds.
QUICKLY = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
OURS = "unikernel-shim"
SANDBOX = "unikernel.sandbox"
TASK, CONTROLLER = "containerd.task.v3.Task", "containerd.services.sandbox.v1.Controller"


class Traced:
    """containerd and the daemon on a node of their own, and where their spans go."""

    def __init__(self, collector: Collector, containerd: Containerd, daemon: Daemon) -> None:
        self.collector, self.containerd, self.daemon = collector, containerd, daemon


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    with fresh_node("o") as node, Collector(node) as collector:
        daemon = Daemon(node, more=f'\n[tracing]\nendpoint = "{collector.endpoint}"\n', env=QUICKLY)
        containerd = Containerd(node, collector=collector.endpoint, env=QUICKLY)
        with running(daemon), running(containerd):
            containerd.load(tender_double.image())
            yield Traced(collector, containerd, daemon)


def children(spans: Sequence[Received], parent: Received) -> set[str]:
    return {span.name for span in spans if span.parent == parent.id}


def ours(spans: Sequence[Received], name: str) -> Received:
    """The one of ours with that name."""
    [found] = [span for span in spans if span.service == OURS and span.name == name]
    return found


def trace_of(traced: Traced, call: str, id: str, last: str) -> list[Received]:
    """The whole trace of a CRI call about a container or a sandbox, once our span `last` is there."""

    def whole(spans: Sequence[Received]) -> list[Received]:
        about = {s.trace for s in spans if id in (s.attributes.get("container.id"), s.attributes.get(SANDBOX))}
        calls = {s.trace for s in spans if s.service == "containerd" and s.name.endswith(f"RuntimeService/{call}")}
        found = [span for span in spans if span.trace in about & calls]
        return found if any(span.service == OURS and span.name == last for span in found) else []

    return traced.collector.wait(whole)


def path(spans: Sequence[Received], span: Received) -> list[str]:
    """From a span up to where its trace begins."""
    by_id = {each.id: each for each in spans}
    found = [f"{span.service}: {span.name}"]
    while span.parent:
        span = by_id[span.parent]
        found.append(f"{span.service}: {span.name}")
    return found


@pytest.mark.parametrize("sandboxer", ["unikernel", "unikernel-shim", "unikernel-podsandbox"])
def test_from_the_cri_call_to_the_monitors_exec(sandboxer: str, traced: Traced) -> None:
    cri = traced.containerd.cri
    with cri.pod(sandboxer) as pod:
        container = pod.run(tender_double.REFERENCE, args=[f"address={pod.address}"])
        spans = trace_of(traced, "StartContainer", container, f"{TASK}/Start")
        up = path(spans, ours(spans, "engine_start"))
        assert up[:3] == [f"{OURS}: engine_start", f"{OURS}: start", f"{OURS}: {TASK}/Start"]
        assert up[3] == f"containerd: {TASK}/Start" and up[-1] == "containerd: runtime.v1.RuntimeService/StartContainer"
        create, call = ours(spans, "create"), ours(spans, f"{TASK}/Create")
        assert {"mount", "recognise", "storage", "plumb", "configure", "engine_create"} <= children(spans, create)
        assert children(spans, ours(spans, "plumb")) == {"layout", "plan", "apply"}
        assert create.attributes["unikernel.kind"] == "unikernel" and create.attributes[SANDBOX] == pod.id
        assert create.parent == call.id and call.attributes["rpc.grpc.status_code"] == 0
        assert call.attributes["rpc.system"] == "ttrpc", "tasks are ttrpc's, whoever has the sandbox"
        cri.stop(container)

        # The end came by itself, and says in which trace the container was made.
        [end] = traced.collector.wait(
            lambda all: [s for s in all if s.name == "exit" and s.attributes["container.id"] == container]
        )
        assert end.trace != create.trace and end.links == [create.trace] and not end.parent


def test_the_sandbox_plugins_calls(traced: Traced) -> None:
    """containerd passes its context to them from 2.3 on. With an older one a client of ours says what it would."""
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with traced.containerd.cri.pod("unikernel") as pod:
        with Door(traced.daemon.socket, "k8s.io", {"traceparent": f"00-{trace}-{parent}-01"}) as door:
            door.controller("Status", sandbox_id=pod.id)
        [call] = traced.collector.wait(lambda all: [span for span in all if span.trace == trace])
        assert (call.name, call.parent, call.attributes[SANDBOX]) == (f"{CONTROLLER}/Status", parent, pod.id)
        assert call.attributes["rpc.system"] == "grpc"


def test_what_failed_says_why(traced: Traced) -> None:
    with traced.containerd.cri.pod("unikernel") as pod:
        container = pod.create(tender_double.REFERENCE, annotations={"io.unikernel.memory": "much"})
        with pytest.raises(grpc.RpcError, match=r"io\.unikernel\.memory"):
            traced.containerd.cri.start(container)
        spans = trace_of(traced, "StartContainer", container, f"{TASK}/Create")
        for name in ("recognise", "create", f"{TASK}/Create"):
            assert "io.unikernel.memory" in ours(spans, name).error
