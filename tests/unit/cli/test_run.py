"""What keeps a kernel from being run in the foreground is said in a line."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from shim.cli.main import main
from tests.unit.cli.users import another_user


@pytest.fixture
def config() -> Iterator[Path]:
    """A configuration that everybody may read, whose run directory is in one that others may not write to."""
    with tempfile.TemporaryDirectory(prefix="uks") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "config.toml"
        path.write_text(f'run_dir = "{directory}/run"\n')
        yield path


def run(config: Path, kernel: Path) -> str:
    with another_user():
        asked = CliRunner().invoke(main, ["--config", str(config), "run", str(kernel)])
    assert asked.exit_code in (1, 2) and not isinstance(asked.exception, OSError)
    return asked.stderr


def test_another_user_than_root_is_told_so(config: Path) -> None:
    kernel = config.with_name("kernel")
    kernel.touch()
    said = run(config, kernel)
    assert said.startswith(f"unikernel-shim: {config.parent}/run: the run directory cannot be made: Permission denied")
    assert "run as root" in said


def test_a_kernel_that_another_user_may_not_see(config: Path) -> None:
    closed = config.with_name("closed")
    closed.mkdir(mode=0)
    assert run(config, closed / "kernel") == f"unikernel-shim: {closed}/kernel: it cannot be read: Permission denied\n"


def test_a_kernel_that_is_not_there(config: Path) -> None:
    assert "there is no such file" in run(config, config.with_name("gone"))
