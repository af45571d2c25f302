"""What is removed that nobody asked for is counted, once it is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim import telemetry
from shim.errors import NodeFault
from shim.sandbox import teardown
from shim.sandbox.record import ContainerRecord
from shim.telemetry import Leftover, Tally


class Counts:
    """A recorder of which only the counting matters."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[Tally, str]] = Counter()

    def count(self, what: Tally, kind: str, by: int) -> None:
        self.counted[what, kind] += by


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    made = Counts()

    async def dismantle(node: Any, record: ContainerRecord) -> None:
        if record.container == "stuck":
            raise NodeFault("busy", subject=record.container)
        record.plumbing = None  # as a restored network leaves it

    monkeypatch.setattr(teardown, "dismantle", dismantle)
    with telemetry.recorded_by(cast(telemetry.Recorder, made)):
        yield made


def record(id: str, **more: Any) -> ContainerRecord:
    return ContainerRecord(namespace="n", container=id, sandbox="s", bundle=Path("/b"), **more)


async def test_what_the_record_speaks_of_is_counted(counts: Counts) -> None:
    plumbing = cast(Any, SimpleNamespace(plan=SimpleNamespace(nics=("eth0", "net1"))))
    whole = record("c", engine=True, rootfs=Path("/r"), disks=Path("/d"), plumbing=plumbing)
    await teardown.remove_leftover(cast(Any, None), whole)
    await teardown.remove_leftover(cast(Any, None), record("early", rootfs=Path("/r")))
    assert counts.counted == {
        (Tally.LEFTOVER, Leftover.CONTAINER): 1,
        (Tally.LEFTOVER, Leftover.TAP): 2,
        (Tally.LEFTOVER, Leftover.MOUNT): 2,
        (Tally.LEFTOVER, Leftover.DISK): 1,
    }


async def test_what_could_not_be_removed_is_not(counts: Counts) -> None:
    with pytest.raises(NodeFault):
        await teardown.remove_leftover(cast(Any, None), record("stuck", engine=True))
    assert not counts.counted
