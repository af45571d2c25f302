"""What is measured: samples of several contenders, taken in turn, and what is said of them.

A `Figure` takes samples; a `Table` is what it comes to, and what is printed, written, drawn and compared. No I/O here
but the machine's load, which is kept with every figure.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")

#: How many points of a distribution are kept of more samples than that.
_POINTS = 101
#: Of a normal distribution: 99 % of it are within so many standard deviations of its middle.
_NINETY_NINE = 2.576


class Goal(msgspec.Struct, frozen=True):
    """What a contender is to reach: so much or less, of its ratio to the peer's, or of the value itself."""

    limit: float
    of: Literal["median", "p99", "worst"] = "median"
    ratio: bool = True

    def __str__(self) -> str:
        subject = " ".join(word for word in (self.of if self.of != "median" else "", "ratio" * self.ratio) if word)
        return f"{subject} {self.limit:g} or less".lstrip()


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A contender: values in its table's unit, ratios to the peer's.

    There is no ratio beside a peer that is nothing or took no part. `between` is where the ratio of the medians lies as
    far as these samples tell (`middle` of both); `points` are the distribution: all samples in order, or its
    percentiles. A goal is `reached` or not, in words.
    """

    name: str
    count: int
    median: float
    p99: float
    worst: float
    ratio: float | None = None
    ratio_p99: float | None = None
    between: tuple[float, float] | None = None
    points: tuple[float, ...] = ()
    reached: dict[str, bool] = {}


class Table(msgspec.Struct, frozen=True, omit_defaults=True):
    """A figure that has been measured. `load` is the machine's load average, the least and the most meanwhile."""

    key: str
    title: str
    unit: str
    peer: str
    load: tuple[float, float]
    rows: tuple[Row, ...]
    more_is_better: bool = False

    def row(self, name: str) -> Row | None:
        """The contender of that name, if it took part."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def heading(self) -> str:
        """The title, with the unit and the machine's load."""
        least, most = self.load
        return f"{self.title} ({self.unit}; load {least:.1f} to {most:.1f})"


class Figure:
    """One figure, a row for each contender, in the order of their first samples.

    `key` names it for good: in files and in the baseline. `peer` is the row that the others are divided by; `goals` are
    what rows are to reach. Contenders are to be sampled in turn (`turns`), so that a machine whose speed drifts favours
    none.
    """

    def __init__(
        self,
        key: str,
        title: str,
        unit: str = "ms",
        *,
        peer: str = "",
        more_is_better: bool = False,
        goals: Mapping[str, Sequence[Goal]] | None = None,
    ) -> None:
        self.key, self.title, self.unit, self.peer = key, title, unit, peer
        self.more_is_better, self.goals = more_is_better, goals or {}
        self.samples: dict[str, list[float]] = {}
        self._loads: list[float] = []

    def add(self, name: str, *values: float) -> None:
        """Further samples of a contender, in the figure's unit."""
        self.samples.setdefault(name, []).extend(values)
        self._loads.append(os.getloadavg()[0])

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Take how long the body runs, in milliseconds, for a sample; not where it raises."""
        began = time.perf_counter()
        yield
        self.add(name, (time.perf_counter() - began) * 1000)

    def clear(self) -> None:
        """Forget the samples so far: they were to warm up."""
        self.samples.clear()
        self._loads.clear()

    def table(self) -> Table:
        """What it comes to. Raises ValueError where nothing was measured."""
        peer = self.samples.get(self.peer)
        rows = tuple(self._row(name, values, peer) for name, values in self.samples.items())
        load = (min(self._loads), max(self._loads))
        return Table(self.key, self.title, self.unit, self.peer, load, rows, self.more_is_better)

    def _row(self, name: str, values: list[float], peer: list[float] | None) -> Row:
        row = Row(
            name=name,
            count=len(values),
            median=statistics.median(values),
            p99=percentile(values, 99),
            worst=min(values) if self.more_is_better else max(values),
            points=points(values),
        )
        least, most = middle(peer) if peer is not None and name != self.peer else (0.0, 0.0)
        if peer is not None and least > 0:
            low, high = middle(values)
            row = msgspec.structs.replace(
                row,
                ratio=row.median / statistics.median(peer),
                ratio_p99=row.p99 / percentile(peer, 99),
                between=(low / most, high / least),
            )
        reached = {str(goal): _of(row, goal) <= goal.limit for goal in self.goals.get(name, ())}
        return msgspec.structs.replace(row, reached=reached)


def _of(row: Row, goal: Goal) -> float:
    """What a goal is about; a ratio that there is none of is not a number, and reaches nothing."""
    if not goal.ratio:
        return float({"median": row.median, "p99": row.p99, "worst": row.worst}[goal.of])
    found = row.ratio_p99 if goal.of == "p99" else row.ratio
    return math.nan if found is None else found


def percentile(values: Sequence[float], rank: int) -> float:
    """The least sample that `rank` percent of the samples do not exceed."""
    return sorted(values)[max(0, -(-len(values) * rank // 100) - 1)]


def middle(values: Sequence[float]) -> tuple[float, float]:
    """Between which samples the median of what they were taken from lies, to 99 %; of few samples, all of them.

    By their order alone, whatever the distribution: so many of n samples lie below the median as of n coins show heads,
    about n/2 with a standard deviation of half the square root of n.
    """
    ordered, count = sorted(values), len(values)
    away = _NINETY_NINE * math.sqrt(count) / 2
    first, last = math.floor(count / 2 - away), math.ceil(count / 2 + away)
    return ordered[max(0, first)], ordered[min(count - 1, last)]


def points(values: Sequence[float]) -> tuple[float, ...]:
    """The distribution in no more than a hundred and one points, in order."""
    ordered = sorted(values)
    if len(ordered) > _POINTS:
        ordered = [ordered[round(at * (len(ordered) - 1) / (_POINTS - 1))] for at in range(_POINTS)]
    return tuple(float(f"{value:.5g}") for value in ordered)


def turns(rounds: int, contenders: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    """Each contender once a round; who begins changes, so that none always follows the same one."""
    pairs = list(contenders.items())
    for number in range(rounds):
        first = number % len(pairs) if pairs else 0
        yield from pairs[first:] + pairs[:first]
