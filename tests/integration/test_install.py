"""`make install` and `make uninstall` on a root of their own: what comes runs, and goes without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import paths

pytestmark = pytest.mark.timeout(180)

_SCRIPTS = paths.ROOT / "contrib" / "install"
_CONFIGURATION = "etc/unikernel-shim/config.toml"
#: What a node has already; the empty one must not go with what is put into it.
_BEFORE = ("etc/systemd/system", "usr/bin", "usr/local/bin")


def script(name: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DESTDIR": str(root), "PYTHON": str(Path(sys.executable).resolve())}
    return subprocess.run([_SCRIPTS / name], env=environment, capture_output=True, text=True, timeout=150, check=False)


def tree(root: Path) -> dict[str, str]:
    """Everything below: a directory, a link's target, or a file's size and mode."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind = "directory" if path.is_dir() and not path.is_symlink() else f"{status.st_mode:o} {status.st_size}"
        found[str(path.relative_to(root))] = str(path.readlink()) if path.is_symlink() else kind
    return found


def test_what_is_installed_runs_and_goes_without_a_trace(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in _BEFORE:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/bin/other").write_text("somebody else's")
    before = tree(tmp_path)

    done = script("install.sh", tmp_path)
    assert done.returncode == 0, done.stderr
    prefix = tmp_path / "opt" / "unikernel-shim"
    # Its paths are those of the node that it is meant for, so here it is run as a module.
    shown = subprocess.run(
        [prefix / "venv/bin/python", "-m", "shim.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("unikernel-shim, version ")
    # No daemon answers it, and the one beside it cannot be started from here.
    (tmp_path / _CONFIGURATION).write_text(f'run_dir = "{tmp_path_factory.mktemp("run")}"\n')
    courier = subprocess.run(
        [prefix / "venv/bin/containerd-shim-unikernel-v2", "-v"],
        env={"UNIKERNEL_SHIM_CONFIG": str(tmp_path / _CONFIGURATION)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the daemon cannot be started" in courier.stderr
    assert (tmp_path / "usr/local/bin/unikernel-shim").readlink() == Path("/opt/unikernel-shim/venv/bin/unikernel-shim")
    for unit in ("unikernel-shim.service", "unikernel-shim.socket"):
        text = (tmp_path / "etc/systemd/system" / unit).read_text()
        assert "@" not in text and "/opt/unikernel-shim/share/doc/docs/operations.md" in text
    assert (prefix / "share/doc/docs/operations.md").exists()
    assert (prefix / "share/doc/contrib/containerd/2.x-sandbox-plugin.toml").exists()

    (tmp_path / _CONFIGURATION).write_text("# mine\n")
    (tmp_path / "usr/local/bin/mine").touch()
    done = script("uninstall.sh", tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "usr/local/bin/mine").unlink()
    after = tree(tmp_path)
    assert {name: after[name] for name in after.keys() - before.keys()} == {
        "etc/unikernel-shim": "directory",
        _CONFIGURATION: f"{(tmp_path / _CONFIGURATION).stat().st_mode:o} 7",
    }
    assert before.items() <= after.items()

    again = script("uninstall.sh", tmp_path)
    assert again.returncode == 1 and "nothing is installed there" in again.stderr


def test_what_cannot_be_installed_leaves_what_was_there(tmp_path: Path) -> None:
    """An installation that fails half-way is undone by the same uninstall."""
    (tmp_path / "usr/local").mkdir(parents=True)
    (tmp_path / "usr/local/bin").write_text("in the way")
    before = tree(tmp_path)
    done = script("install.sh", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert script("uninstall.sh", tmp_path).returncode == 0
    assert tree(tmp_path) == before
