"""What happens while somebody counts: phases, calls, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from shim import telemetry
from shim.errors import NotFound, WrongState
from shim.rpc.service import Call, Running, from_descriptor
from shim.telemetry import Leftover, Phase, Tally
from tests.unit.metrics.pages import Node
from tests.unit.rpc.echo import DESCRIPTOR, NAME, Echo


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    with telemetry.recorded_by(made.metrics.instruments):
        yield made


async def test_phases_of_a_start(node: Node) -> None:
    with telemetry.phase(Phase.CREATE, container="c1") as span:
        with telemetry.phase(Phase.MOUNT):
            pass
        with telemetry.phase(Phase.PLUMB), telemetry.phase(Phase.LAYOUT):
            pass
        span.note(kind="unikernel")
    with telemetry.phase(Phase.UNPLUMB):
        pass
    count = await node.of("unikernel_shim_start_duration_seconds_count")
    assert count == {("unikernel", "create"): 1, ("any", "mount"): 1, ("unikernel", "plumb"): 1}
    assert await node.of("unikernel_shim_plumbing_duration_seconds_count") == {("all",): 1, ("layout",): 1}
    assert await node.of("unikernel_shim_teardown_duration_seconds_count") == {("unplumb",): 1}


async def test_every_phase_is_told_of_somewhere(node: Node) -> None:
    for phase in Phase:
        with telemetry.phase(phase, kind="unikernel"):
            pass
    told = {key for key in await node.samples() if key[0].endswith("duration_seconds_count")}
    phases = {label for key in told for label in key[1:]}
    assert phases >= {phase.value for phase in Phase}


async def test_what_fails_is_counted_and_not_timed(node: Node) -> None:
    with pytest.raises(WrongState), telemetry.phase(Phase.CREATE), telemetry.phase(Phase.APPLY):
        raise WrongState("no")
    with pytest.raises(asyncio.CancelledError), telemetry.phase(Phase.CREATE):
        raise asyncio.CancelledError
    failures = await node.of("unikernel_shim_phase_failures_total")
    assert {key: value for key, value in failures.items() if value} == {("create",): 1, ("apply",): 1}
    assert len(failures) == len(Phase), "all there from the start"
    assert await node.of("unikernel_shim_start_duration_seconds_count") == {}


async def test_what_is_counted(node: Node) -> None:
    telemetry.count(Tally.LEFTOVER, Leftover.TAP, 3)
    telemetry.count(Tally.RESTARTED, "unikernel")
    leftovers = await node.of("unikernel_shim_leftovers_removed_total")
    assert leftovers["tap",] == 3 and leftovers["image",] == 0
    assert (await node.of("unikernel_shim_restarts_total"))["unikernel",] == 1
    assert (await node.of("unikernel_shim_adopted_total"))["unikernel",] == 0


async def test_calls(node: Node) -> None:
    echo = Echo()
    service, running = from_descriptor(DESCRIPTOR, echo, cancellable={"Wait"}), Running()

    async def call(method: str, word: str) -> None:
        about = Call(namespace="n", method=f"{NAME}/{method}", transport="ttrpc")
        await running.call(service.methods[method], StringValue(value=word), about)

    await call("Echo", "a")
    await call("Echo", "b")
    with pytest.raises(NotFound):
        await call("Fail", "not found")
    with pytest.raises(RuntimeError):
        await call("Fail", "boom")
    waiting = asyncio.create_task(call("Wait", "c"))
    await asyncio.sleep(0)
    assert (await node.of("unikernel_shim_rpcs_in_flight"))["Wait", NAME, "ttrpc"] == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await node.of("unikernel_shim_rpcs_in_flight"))["Wait", NAME, "ttrpc"] == 0
    assert await node.of("unikernel_shim_rpc_duration_seconds_count") == {
        ("OK", "Echo", NAME, "ttrpc"): 2,
        ("NOT_FOUND", "Fail", NAME, "ttrpc"): 1,
        ("INTERNAL", "Fail", NAME, "ttrpc"): 1,
        ("CANCELLED", "Wait", NAME, "ttrpc"): 1,
    }
