"""A look that goes wrong is a finding; findings have an order and a sum."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shim.config import Config
from shim.doctor import examination
from shim.doctor.examination import Failed
from shim.doctor.finding import Area, Finding, Outcome, can_run, in_order
from shim.errors import NodeFault


async def _hangs() -> None:
    await asyncio.sleep(60)


def _raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (_hangs, "more than"),
        (_raising(NodeFault("too old", subject="qemu", remedy="x")), "too old"),
        (_raising(PermissionError(13, "Permission denied")), "Permission denied"),
        (_raising(ZeroDivisionError("division by zero")), "ZeroDivisionError: division by zero"),
    ],
)
async def test_a_look_that_goes_wrong(
    work: Callable[[], Awaitable[None]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "_PATIENCE", 0.05)
    found = await examination._look(Area.ENGINE, "engine", work)
    assert isinstance(found, Failed) and said in found.finding.what
    assert found.finding.outcome is Outcome.DOUBTFUL and found.finding.area is Area.ENGINE


async def test_where_nothing_could_be_looked_at() -> None:
    finding = Finding(area=Area.KERNEL, subject="x", outcome=Outcome.DOUBTFUL, what="y")
    seen = examination._Seen(**dict.fromkeys(examination._Seen.__struct_fields__, Failed(finding)))
    assert examination._judge(seen, Config(), root=True) == [finding] * 11


def test_from_the_outside_in() -> None:
    every = [Finding(area=area, subject="x", outcome=Outcome.GOOD, what="") for area in reversed(Area)]
    assert [each.area for each in in_order(every)] == list(Area)
    assert next(iter(Area)) is Area.KERNEL and list(Area)[-1] is Area.CLUSTER


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_bad_alone_keeps_pods_from_running(outcome: Outcome) -> None:
    found = [Finding(area=Area.ENGINE, subject="x", outcome=outcome, what="")]
    assert can_run(found) == (outcome is not Outcome.BAD)
