"""`make bench-check`: the ratios of the last run beside those that are committed.

Ratios, because a peer in the same run has met the same machine; what is no ratio is not compared. A ratio is worse only
where the whole of what its samples leave open lies beyond the baseline's by more than a margin: then neither the
machine's noise nor a machine of another kind explains it easily.

    python -m tests.performance.baseline            # exit code 1 where something is worse
    python -m tests.performance.baseline --renew    # make the last run the baseline
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shim.bench.figures import Row, Table
from tests.performance import results
from tests.performance.machine import Machine
from tests.performance.results import Results

FILE: Final = Path(__file__).with_name("baseline.json")
#: By how much a ratio may move before anything is said, beyond what its own samples leave open.
MARGIN: Final = 0.15


class Baseline(msgspec.Struct, frozen=True):
    """What is committed: ratios by figure and contender, and what they were measured on."""

    machine: Machine
    ratios: dict[str, dict[str, float]]


class Verdict(msgspec.Struct, frozen=True):
    """One ratio beside the baseline's."""

    figure: str
    name: str
    before: float
    now: float
    word: str  # "worse", "better", "same"


def of(run: Results, former: Mapping[str, Mapping[str, float]]) -> Baseline:
    """A run as the baseline. What it has not measured stays as it was."""
    ratios = {key: dict(rows) for key, rows in former.items()}
    for table in run.figures:
        measured = {row.name: round(row.ratio, 3) for row in table.rows if row.ratio is not None}
        if measured:
            ratios[table.key] = measured
    return Baseline(run.machine, dict(sorted(ratios.items())))


def compare(run: Results, baseline: Baseline) -> Iterator[Verdict]:
    """Every ratio that both have."""
    for table in run.figures:
        for row in table.rows:
            before = baseline.ratios.get(table.key, {}).get(row.name)
            if before is not None and row.ratio is not None:
                yield Verdict(table.key, row.name, before, row.ratio, _word(table, row, before))


def _word(table: Table, row: Row, before: float) -> str:
    assert row.between is not None
    low, high = row.between
    above, below = low > before * (1 + MARGIN), high < before / (1 + MARGIN)
    if above or below:
        return "better" if below != table.more_is_better else "worse"
    return "same"


def read(path: Path) -> Baseline:
    """The committed one. Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Baseline)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        run = results.load(results.FILE)
    except OSError:
        print(f"{results.FILE} is missing: run `make bench`", file=sys.stderr)
        return 2
    former = read(FILE) if FILE.exists() else None
    if list(arguments) == ["--renew"]:
        renewed = of(run, former.ratios if former else {})
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(renewed), indent=1) + b"\n")
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if former is None:
        print(
            f"There is no baseline yet ({FILE.name}), so nothing is compared; to make this run the baseline: "
            "python -m tests.performance.baseline --renew",
            file=sys.stderr,
        )
        return 2
    verdicts = list(compare(run, former))
    for verdict in verdicts:
        print(f"{verdict.word:<7} {verdict.before:7.2f} {verdict.now:7.2f}  {verdict.figure}: {verdict.name}")
    worse = sum(verdict.word == "worse" for verdict in verdicts)
    print(f"{len(verdicts)} ratios, the baseline's first (commit {former.machine.commit}): {worse} worse")
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
