"""Draws a run's figures: `python -m tests.performance.plots` makes build/bench/NAME.svg out of build/bench.json.

A plot for each figure that has contenders to be seen beside each other: each one's samples as a cumulative distribution
where there are many, else a bar for each median. And one of all ratios that have something to reach.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from shim.bench.figures import Table
from tests.performance import results
from tests.performance.results import Results

DIRECTORY: Final = results.FILE.with_suffix("")
#: From so many samples on there is a distribution to be seen.
_MANY: Final = 20


def draw(run: Results, directory: Path) -> list[Path]:
    """Draw them; the files."""
    mpl.use("svg")
    # Text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    made = [_table(table, directory) for table in run.figures if len(table.rows) > 1]
    return [*made, *_ratios(run, directory)]


def _table(table: Table, directory: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    if min(row.count for row in table.rows) >= _MANY:
        _distributions(table, axes)
    else:
        names = [row.name for row in table.rows]
        axes.barh(names, [row.median for row in table.rows], color=[f"C{at}" for at in range(len(names))])
        axes.invert_yaxis()
        axes.set_xlabel(table.unit)
    axes.set_title(table.title, fontsize=10)
    return _save(figure, directory / f"{name(table.key)}.svg")


def _distributions(table: Table, axes: Any) -> None:
    for row in table.rows:
        last = len(row.points) - 1
        axes.plot(row.points, [at / last * 100 for at in range(last + 1)], label=f"{row.name}: {row.median:.4g}")
    axes.set_xlim(0, max(row.p99 for row in table.rows) * 1.1)
    axes.set_xlabel(table.unit)
    axes.set_ylabel("percent at most so long")
    axes.legend(fontsize=8)


def _ratios(run: Results, directory: Path) -> list[Path]:
    """Our ratios to the peer; one is the peer's own."""
    from matplotlib.figure import Figure

    found = [
        (f"{table.title}: {row.name}", row.ratio, row.between, all(row.reached.values()))
        for table in run.figures
        for row in table.rows
        if row.ratio is not None and row.between is not None and row.reached
    ]
    if not found:
        return []
    figure = Figure(figsize=(9, 0.8 + 0.28 * len(found)), layout="constrained")
    axes = figure.subplots()
    for at, (_, ratio, (low, high), reached) in enumerate(found):
        axes.plot([low, high], [at, at], color="0.6", linewidth=3, solid_capstyle="round")
        axes.plot([ratio], [at], "o", color="C0" if reached else "C3")
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(found)), [title for title, *_ in found])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title("Ratio to the peer (red: not reached)", fontsize=10)
    return [_save(figure, directory / "ratios.svg")]


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path


def name(key: str) -> str:
    """A figure's key as a file's name."""
    return re.sub(r"[^\w.-]+", "-", key).strip("-")


def main() -> int:
    """The exit code."""
    try:
        run = results.load(results.FILE)
    except OSError:
        print(f"{results.FILE} is missing: run `make bench`", file=sys.stderr)
        return 2
    made = draw(run, DIRECTORY)
    print(f"{len(made)} plots in {DIRECTORY}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
