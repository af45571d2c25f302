"""What a table of figures says, and what is said where nothing can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from shim.bench import measuring
from shim.bench.figures import Figures
from shim.cli.bench import as_object
from shim.cli.main import main


def test_medians_percentiles_and_ratios() -> None:
    figures = Figures("Two", "ms", peer="peer", spread=True)
    figures.add("ours", *map(float, range(1, 101)))
    figures.add("peer", 100.0, 102.0)
    ours, peer = figures.rows()
    assert (ours.count, ours.median, ours.p99, ours.ratio) == (100, 50.5, 99.0, 0.5)
    assert (peer.median, peer.p99, peer.ratio) == (101.0, 102.0, 1.0)
    assert as_object(figures)["rows"][0] == {"name": "ours", "n": 100, "median": 50.5, "p99": 99.0, "ratio": 0.5}


def test_without_a_peer_there_is_no_ratio() -> None:
    made = measuring.round_trips(lambda: None, 5)
    assert [(row.name, row.count, row.ratio) for row in made.rows()] == [("List", 5, None)]


def test_what_cannot_be_measured_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "unikernel-shim")])
    asked = CliRunner().invoke(main, ["--config", str(config), "bench", "--rounds", "1", "--json"])
    assert asked.exit_code == 0, asked.output
    assert '"figures": []' in asked.stdout
    for words in ("a call is not measured", "is not on PATH", "plumbing is not measured"):
        assert words in asked.stderr
