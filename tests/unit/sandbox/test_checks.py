"""Who is checked, and what is kept of it."""

from __future__ import annotations

import asyncio
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
from shim.sandbox.rounds import Rounds
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


class Answers(Checker):
    """Notes who is checked; some are gone by then, and one does not answer for a while."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.asked: list[str] = []

    async def check(self, sandbox: Sandbox) -> Report:
        self.asked.append(sandbox.id)
        if sandbox.id == "gone":
            raise WrongState("stopped")
        if sandbox.id == "slow":
            await asyncio.sleep(0.06)
        if sandbox.id == "odd":
            raise ValueError("not in the book")
        return report(Outcome.PROVEN)


def pods(*names: str, status: Status = Status.RUNNING) -> Any:
    def pod(name: str) -> Any:
        return SimpleNamespace(id=name, unikernel=SimpleNamespace(id=f"c-{name}", init=SimpleNamespace(status=status)))

    held = [*map(pod, names), SimpleNamespace(id="plain", unikernel=None)]
    return SimpleNamespace(all=lambda: held, held=held)


async def test_each_guest_is_checked_once_a_round() -> None:
    checker = Answers()
    going = asyncio.create_task(Rounds(pods("a", "gone", "slow", "b"), checker, every=0.1).run())
    await asyncio.sleep(0.05)
    assert checker.asked == [], "they may be booting"
    await asyncio.sleep(0.1)
    assert 0 < len(checker.asked) < 4, "spread over the round"
    await asyncio.sleep(0.1)
    going.cancel()
    assert checker.asked[:5] == ["a", "gone", "slow", "b", "a"], "and one that is slow makes it no longer"


async def test_a_check_that_we_did_not_think_of_does_not_end_the_round() -> None:
    checker = Answers()
    going = asyncio.create_task(Rounds(pods("odd", "a"), checker, every=0.05).run())
    await asyncio.sleep(0.3)
    assert not going.done() and checker.asked[:4] == ["odd", "a", "odd", "a"]
    going.cancel()


def test_a_guest_is_due_from_its_second_round_on() -> None:
    held = pods("a")
    rounds = Rounds(held, Checker(lambda _: None), every=1)
    assert rounds.due() == []
    held.held.append(pods("b").held[0])
    assert [sandbox.id for sandbox in rounds.due()] == ["a"]
    assert [sandbox.id for sandbox in rounds.due()] == ["a", "b"]
    held.held[0].unikernel.init.status = Status.STOPPED
    assert [sandbox.id for sandbox in rounds.due()] == ["b"]
