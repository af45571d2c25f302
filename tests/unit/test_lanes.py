"""What `make test` runs, in processes side by side."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import lanes

_TESTS = Path(lanes.__file__).parent


def test_every_module_is_run_once() -> None:
    found = [path for stretch in lanes.stretches() for path in stretch]
    assert len(found) == len(set(found))
    rooms = {path for path in found if not path.endswith(".py")}
    modules = {f"tests/{path.relative_to(_TESTS)}" for path in _TESTS.rglob("test_*.py")}
    # Benchmarks are run by `make bench`.
    expected = {
        path for path in modules if not path.startswith(("tests/performance/", *(f"{room}/" for room in rooms)))
    }
    assert {path for path in found if path.endswith(".py")} == expected
    assert rooms == {"tests/unit", "tests/chaos"}


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """What stands in for a stretch of tests, run by a bare interpreter."""
    texts = {
        "passes": "print('well')",
        "fails": "print('badly'); raise SystemExit(1)",
        "empty": "raise SystemExit(5)",
        "waits": f"""
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
pathlib.Path({str(tmp_path / "begun")!r}).touch()
try:
    time.sleep(60)
finally:
    pathlib.Path({str(tmp_path / "undone")!r}).touch()
""",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: (str(tmp_path / name),) for name in texts}


@pytest.mark.parametrize(
    ("names", "code"),
    [(("passes", "empty"), 0), (("empty", "empty"), 5), (("passes", "fails", "passes"), 1), ((), 5)],
)
def test_the_worst_exit_code_is_told(
    names: tuple[str, ...], code: int, scripts: dict[str, tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert lanes.Lanes([scripts[name] for name in names], [sys.executable], []).run(2) == code
    said = capfd.readouterr().out
    assert (said.count("well"), said.count("badly")) == (names.count("passes"), names.count("fails"))


def test_told_to_end_each_undoes_what_it_made(scripts: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    program = f"""
import signal, sys
from tests import lanes
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(lanes.Lanes([{scripts["waits"]!r}] * 3, [sys.executable], []).run(1))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=_TESTS.parent, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 2
    assert (tmp_path / "undone").exists()
