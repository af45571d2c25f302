"""What a table says to programs, and what is said where nothing can be measured."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shim.bench import measuring
from shim.bench.figures import Figure
from shim.cli.bench import as_object
from shim.cli.main import main
from shim.errors import NodeFault


def test_a_table_for_programs() -> None:
    figure = Figure("two", "Two", peer="peer")
    figure.add("ours", *map(float, range(1, 101)))
    figure.add("peer", 100.0, 102.0)
    assert as_object(figure.table()) == {
        "title": "Two",
        "unit": "ms",
        "peer": "peer",
        "rows": [
            {"name": "ours", "n": 100, "median": 50.5, "p99": 99.0, "ratio": 0.5},
            {"name": "peer", "n": 2, "median": 101.0, "p99": 102.0, "ratio": 1.0},
        ],
    }


def test_without_a_peer_there_is_no_ratio() -> None:
    made = measuring.round_trips(lambda: None, 5).table()
    assert [(row.name, row.count, row.ratio) for row in made.rows] == [("List", 5, None)]


@pytest.fixture
def courier(tmp_path: Path) -> Path:
    """A shim binary that notes its runs, and of which configuration, in a file beside it."""
    path = tmp_path / "containerd-shim-unikernel-v2"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "with open(f'{sys.argv[0]}.runs', 'a') as runs:\n"
        "    print(os.environ['UNIKERNEL_SHIM_CONFIG'], file=runs)\n"
    )
    path.chmod(0o755)
    return path


def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str = "") -> Result:
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}"\n{settings}')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "unikernel-shim")])
    return CliRunner().invoke(main, ["--config", str(config), "bench", "--rounds", "1", "--json"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [("", "it would start the service"), ('grouping = "pod"\n', 'with grouping = "pod" each run starts a daemon')],
)
def test_no_daemon_is_started_to_be_measured(
    settings: str, reason: str, courier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = bench(tmp_path, monkeypatch, settings)
    assert asked.exit_code == 0 and f"the shim binary is not measured: {reason}" in asked.stderr
    assert not courier.with_name(f"{courier.name}.runs").exists()


def test_the_shim_binary_is_asked_of_the_same_configuration(courier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="uks") as short, socket.socket(socket.AF_UNIX) as door:
        shutil.copy(courier, short)
        door.bind(f"{short}/shim.ttrpc")
        door.listen()
        asked = bench(Path(short), monkeypatch)
        runs = Path(f"{short}/{courier.name}.runs").read_text().splitlines()
    assert "the shim binary" not in asked.stderr
    assert len(runs) == 4 and set(runs) == {f"{short}/config.toml"}  # three of them to warm up


@pytest.mark.parametrize("text", [b"", b"#!\n", b"\x7fELF\x02\xff"])
def test_a_shim_binary_that_is_no_script(text: bytes, tmp_path: Path) -> None:
    binary = tmp_path / "courier"
    binary.write_bytes(text)
    with pytest.raises(NodeFault, match="no script"):
        measuring.courier(binary, 1)


def test_what_cannot_be_measured_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = bench(tmp_path, monkeypatch)
    assert asked.exit_code == 0, asked.output
    assert '"figures": []' in asked.stdout
    for words in ("a call is not measured", "is not on PATH", "plumbing is not measured"):
        assert words in asked.stderr
