"""All figures of one run: as a file, and as one table to be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from shim.bench.figures import Row, Table
from tests.integration import paths
from tests.performance.machine import Machine

#: Where a run's figures are written, and the plots beside them.
FILE = paths.ROOT / "build" / "bench.json"

_NAME = 46  # columns of a contender's name


class Results(msgspec.Struct, frozen=True):
    """What a run has measured; `load` is the load average at its end, `notes` say who did not take part, and why."""

    machine: Machine
    load: float
    figures: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def figure(self, key: str) -> Table | None:
        """The figure of that key, if it was measured."""
        return next((table for table in self.figures if table.key == key), None)


def save(results: Results, path: Path) -> None:
    """Write them as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def load(path: Path) -> Results:
    """Read what `save` wrote. Raises OSError, and msgspec.MsgspecError for anything else than that."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def lines(results: Results) -> Iterator[str]:
    """The table, line by line."""
    machine = results.machine
    yield f"{machine.processors} x {machine.processor}, {machine.memory} MiB, Linux {machine.kernel}"
    yield ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"commit {machine.commit}, {machine.when}; load average {machine.load:.1f} before, {results.load:.1f} after"
    yield f"  {'':<{_NAME}} {'n':>6} {'median':>10} {'p99':>10} {'worst':>10} {'ratio':>7} {'p99':>6}  to reach"
    for table in results.figures:
        yield table.heading
        for row in table.rows:
            yield _line(row, row.name == table.peer)
    for note in results.notes:
        yield f"Note: {note}"


def _line(row: Row, peer: bool) -> str:
    values = "".join(f" {_number(value):>10}" for value in (row.median, row.p99, row.worst))
    ratio = "peer" if peer else _ratio(row.ratio)
    goals = "; ".join(f"{goal}: {'reached' if held else 'NOT REACHED'}" for goal, held in row.reached.items())
    return f"  {row.name:<{_NAME}} {row.count:>6}{values} {ratio:>7} {_ratio(row.ratio_p99):>6}  {goals}".rstrip()


def _number(value: float) -> str:
    """Three digits that count, at least, and none behind the point of a large one."""
    if value and abs(value) < 1:
        return f"{value:.3f}"
    return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
