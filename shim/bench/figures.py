"""Samples of several contenders, taken in turn, and a table of them: medians, 99th percentiles, ratios to the peer."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A contender's samples: how many, their median and 99th percentile, and the median by the peer's."""

    name: str
    count: int
    median: float
    p99: float
    ratio: float | None


class Figures:
    """One table: a row for each contender, in the order of their first samples.

    `peer` is the row that the others are divided by; `spread` asks for the 99th percentile beside the median.
    Contenders are to be sampled in turn, so that a machine whose speed drifts favours none; the machine's load is shown
    with them.
    """

    def __init__(self, title: str, unit: str, *, peer: str = "", spread: bool = False) -> None:
        self.title, self.unit, self.peer, self.spread = title, unit, peer, spread
        self.samples: dict[str, list[float]] = {}
        self._loads: list[float] = []

    def add(self, name: str, *values: float) -> None:
        """Further samples of a contender, in the table's unit."""
        self.samples.setdefault(name, []).extend(values)
        self._loads.append(os.getloadavg()[0])

    def median(self, name: str) -> float:
        """A row's median."""
        return statistics.median(self.samples[name])

    def show(self) -> None:
        """Print the table."""
        print("\n" + "\n".join(self.lines()))

    def rows(self) -> Iterator[Row]:
        """The table's rows."""
        for name, values in self.samples.items():
            median = self.median(name)
            ratio = median / self.median(self.peer) if self.peer in self.samples else None
            yield Row(name, len(values), median, percentile(values, 99), ratio)

    @property
    def heading(self) -> str:
        """The title, with the unit and the machine's load."""
        return f"{self.title} (in {self.unit}; load {min(self._loads):.1f} to {max(self._loads):.1f})"

    def lines(self) -> Iterator[str]:
        """The table, line by line."""
        yield self.heading
        head = f"  {'':<44} {'n':>6} {'median':>10}"
        if self.spread:
            head += f" {'p99':>10}"
        if self.peer:
            head += f"   {f'by {self.peer}'}"
        yield head
        for row in self.rows():
            line = f"  {row.name:<44} {row.count:>6} {row.median:>10,.2f}"
            if self.spread:
                line += f" {row.p99:>10,.2f}"
            if row.ratio is not None:
                line += f"   {row.ratio:.2f}"
            yield line


def percentile(values: list[float], rank: int) -> float:
    """The least sample that `rank` percent of the samples do not exceed."""
    return sorted(values)[max(0, -(-len(values) * rank // 100) - 1)]


@contextmanager
def shown(*tables: Figures) -> Iterator[None]:
    """Print the tables at the end, also where something failed on the way."""
    try:
        yield
    finally:
        for table in tables:
            if table.samples:
                table.show()
