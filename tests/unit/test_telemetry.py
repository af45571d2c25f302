"""The seam between those who work and those who measure."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from shim import telemetry
from shim.telemetry import NOTHING, Leftover, Phase, Recording, Tally


class Log:
    """A recorder that writes down all it is told; `name` is before each line."""

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name, self.lines = name, lines

    def phase(self, phase: Phase) -> Recording:
        return Entry(self, phase.value)

    def call(self, method: str, transport: str, metadata: Mapping[str, str]) -> Recording:
        return Entry(self, f"{method} by {transport} {dict(metadata)}")

    def count(self, what: Tally, kind: str, by: int) -> None:
        self.lines.append(f"{self.name}: {what} {kind} {by}")


class Entry:
    def __init__(self, log: Log, what: str) -> None:
        self.log, self.what = log, what
        log.lines.append(f"{log.name}: {what} begins")

    def note(self, notes: Mapping[str, str]) -> None:
        self.log.lines.append(f"{self.log.name}: {self.what} {dict(notes)}")

    def end(self, seconds: float, error: BaseException | None) -> None:
        assert seconds >= 0
        self.log.lines.append(f"{self.log.name}: {self.what} ends {error!r}")


@pytest.fixture
def lines() -> list[str]:
    return []


def test_where_nobody_measures_nothing_is_made() -> None:
    assert telemetry.phase(Phase.CREATE, container="c1") is NOTHING
    assert telemetry.call("s/m", "grpc", {}) is NOTHING
    with telemetry.phase(Phase.CREATE) as span:
        span.note(kind="unikernel")
    telemetry.count(Tally.LEFTOVER, Leftover.TAP)


def test_all_recorders_are_told(lines: list[str]) -> None:
    with telemetry.recorded_by(Log("a", lines), Log("b", lines)):
        with telemetry.phase(Phase.MOUNT, container="c1") as span:
            span.note(kind="pause")
        telemetry.count(Tally.ADOPTED, "pause", 2)
    assert lines == [
        "a: mount begins",
        "b: mount begins",
        "a: mount {'container': 'c1'}",
        "b: mount {'container': 'c1'}",
        "a: mount {'kind': 'pause'}",
        "b: mount {'kind': 'pause'}",
        "b: mount ends None",
        "a: mount ends None",
        "a: adopted pause 2",
        "b: adopted pause 2",
    ]


def test_errors_pass_through_and_are_told(lines: list[str]) -> None:
    with telemetry.recorded_by(Log("a", lines)), pytest.raises(ValueError), telemetry.call("s/m", "ttrpc", {"k": "v"}):
        raise ValueError("x")
    assert lines == ["a: s/m by ttrpc {'k': 'v'} begins", "a: s/m by ttrpc {'k': 'v'} ends ValueError('x')"]


def test_what_began_while_measured_ends_measured(lines: list[str]) -> None:
    with telemetry.recorded_by(Log("a", lines)):
        span = telemetry.phase(Phase.EXIT)
        span.__enter__()
    span.__exit__(None, None, None)
    assert lines == ["a: exit begins", "a: exit ends None"]
    assert telemetry.phase(Phase.EXIT) is NOTHING
