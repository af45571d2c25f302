"""Who is checked, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import WrongState
from shim.network.checking.check import Finding, Outcome, Probe, Report
from shim.network.plan import Plan
from shim.sandbox import checks
from shim.sandbox.checks import Checker
from shim.sandbox.occurrences import Checked, Occurrence
from shim.sandbox.record import ContainerRecord, PodPlan
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

PLUMBING = PodPlan(netns="/run/netns/x", plan=Plan(sandbox="s", steps=(), nics=()))


def report(outcome: Outcome) -> Report:
    finding = Finding(interface="eth0", family="ipv4", probe=Probe.GUEST, outcome=outcome, sentence="")
    return Report(at=1, took=0.0, findings=(finding,))


def guest(status: Status = Status.RUNNING, plumbing: PodPlan | None = PLUMBING) -> Any:
    record = ContainerRecord(namespace="ns", container="c", sandbox="s", bundle=Path("/"), plumbing=plumbing)
    return SimpleNamespace(id="c", init=SimpleNamespace(status=status), record=record, checked=None)


def sandbox(unikernel: Any) -> Sandbox:
    return cast(Sandbox, SimpleNamespace(id="s", unikernel=unikernel))


async def test_a_report_is_kept_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [report(Outcome.PROVEN), report(Outcome.WRONG), report(Outcome.PROVEN)]

    async def check_at(path: Path, plan: Plan) -> Report:
        assert path == Path(PLUMBING.netns) and plan is PLUMBING.plan
        return found.pop(0)

    monkeypatch.setattr(checks, "check_at", check_at)
    told: list[Occurrence] = []
    checker, checked = Checker(told.append), guest()
    for failed in (False, True, False):
        made = await checker.check(sandbox(checked))
        assert made.failed is failed and checked.checked is made
    assert (checker.passed, checker.failed) == (2, 1)
    assert [len(it.failures) for it in told if isinstance(it, Checked)] == [0, 1, 0]


@pytest.mark.parametrize("status", [Status.CREATED, Status.PAUSED, Status.STOPPED])
async def test_a_guest_that_does_not_run_cannot_answer(status: Status) -> None:
    checker = Checker(lambda _: None)
    with pytest.raises(WrongState, match=status.value):
        await checker.check(sandbox(guest(status)))
    with pytest.raises(WrongState, match="no unikernel"):
        await checker.check(sandbox(None))
    assert (checker.passed, checker.failed) == (0, 0)


async def test_a_guest_without_a_network_has_nothing_to_prove() -> None:
    made = await Checker(lambda _: None).check(sandbox(guest(plumbing=None)))
    assert made.findings == () and not made.failed and made.at
