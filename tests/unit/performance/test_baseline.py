"""Ratios beside the committed ones: what counts as worse, and what noise."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shim.bench.figures import Figure, Table
from tests.performance import baseline, results
from tests.performance.baseline import Baseline
from tests.performance.machine import Machine, processor
from tests.performance.results import Results

_MACHINE = Machine(
    kernel="6.1",
    processor="some",
    processors=2,
    memory=4096,
    versions={"runc": "1"},
    commit="abc",
    when="now",
    load=0.5,
)


def table(key: str, ours: list[float], peer: list[float], *, more_is_better: bool = False) -> Table:
    figure = Figure(key, f"Figure {key}", peer="peer", more_is_better=more_is_better)
    figure.add("peer", *peer)
    figure.add("ours", *ours)
    return figure.table()


def run(*tables: Table) -> Results:
    return Results(_MACHINE, 1.0, tables)


def known(ratio: float) -> Baseline:
    return Baseline(_MACHINE, {"f": {"ours": ratio}})


@pytest.mark.parametrize(
    ("ours", "more_is_better", "word"),
    [
        ([5.0] * 9, False, "same"),
        ([5.7] * 9, False, "same"),  # within the margin
        ([5.8] * 9, False, "worse"),
        ([4.3] * 9, False, "better"),
        ([5.8] * 9, True, "better"),
        ([4.3] * 9, True, "worse"),
        ([5.0] * 4 + [9.0] * 5, False, "same"),  # its samples leave it open
    ],
)
def test_a_ratio_is_worse_beyond_the_margin_and_its_own_noise(
    ours: list[float], more_is_better: bool, word: str
) -> None:
    measured = run(table("f", ours, [10.0] * 9, more_is_better=more_is_better))
    (verdict,) = baseline.compare(measured, known(0.5))
    assert verdict.word == word


def test_only_what_both_have_is_compared() -> None:
    measured = run(table("f", [1.0], [2.0]), table("g", [1.0], [2.0]))
    assert [verdict.figure for verdict in baseline.compare(measured, known(0.5))] == ["f"]
    assert not list(baseline.compare(run(), known(0.5)))


def test_a_renewed_baseline_keeps_what_was_not_measured() -> None:
    renewed = baseline.of(run(table("f", [1.0], [4.0])), {"f": {"ours": 0.9, "gone": 1.0}, "a": {"ours": 0.7}})
    assert renewed.ratios == {"a": {"ours": 0.7}, "f": {"ours": 0.25}}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "FILE", tmp_path / "build" / "bench.json")
    monkeypatch.setattr(baseline, "FILE", tmp_path / "baseline.json")
    return tmp_path


def test_a_worse_ratio_is_named_and_fails(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(run(table("f", [1.0] * 9, [2.0] * 9)), results.FILE)
    assert baseline.main(["--renew"]) == 0
    assert baseline.main([]) == 0
    results.save(run(table("f", [3.0] * 9, [2.0] * 9)), results.FILE)
    assert baseline.main([]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-2].split() == ["worse", "0.50", "1.50", "f:", "ours"]
    assert said[-1] == "1 ratios, the baseline's first (commit abc): 1 worse"


def test_without_a_run_there_is_nothing_to_compare(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert baseline.main([]) == 2
    assert "missing: run `make bench`" in capsys.readouterr().err


def test_without_a_baseline_it_is_said_how_to_make_one(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(run(table("f", [1.0], [2.0])), results.FILE)
    assert baseline.main([]) == 2
    said = capsys.readouterr().err
    assert "no baseline yet" in said and "python -m tests.performance.baseline --renew" in said


def test_an_unknown_word_is_refused(files: Path) -> None:
    results.save(run(), results.FILE)
    assert baseline.main(["--renw"]) == 2


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    measured = run(table("f", [1.0, 2.0], [2.0]))
    results.save(measured, tmp_path / "deep" / "bench.json")
    assert results.load(tmp_path / "deep" / "bench.json") == measured


def test_another_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"machine": 1}')
    with pytest.raises(msgspec.ValidationError):
        results.load(tmp_path / "bench.json")


def test_the_table_names_machine_contenders_ratios_and_notes() -> None:
    measured = Results(_MACHINE, 1.0, (table("f", [0.5], [2000.0]),), ("crun does not work here",))
    said = list(results.lines(measured))
    assert said[0] == "2 x some, 4096 MiB, Linux 6.1"
    assert "load average 0.5 before, 1.0 after" in said[2]
    peer = next(line for line in said if line.strip().startswith("peer"))
    assert peer.split() == ["peer", "1", "2,000", "2,000", "2,000", "peer"]
    ours = next(line for line in said if line.strip().startswith("ours"))
    assert ours.split() == ["ours", "1", "0.500", "0.500", "0.500", "0.00", "0.00"]
    assert said[-1] == "Note: crun does not work here"


def test_a_processor_without_a_name_has_none() -> None:
    assert processor("processor : 0\nmodel name\t: Some CPU @ 3 GHz\n") == "Some CPU @ 3 GHz"
    assert processor("processor : 0\nCPU part : 0xd0c\n") == ""
