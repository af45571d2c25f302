"""Bundles on disk: what a monitor's own root holds."""

from __future__ import annotations

import stat
from pathlib import Path

from shim.monitors.base import Launch
from shim.oci import bundle

_FILES = {Path("/unikernel/firecracker.json"): b"{}", Path("/unikernel/more/words"): b"a b"}


def test_files_of_the_monitors_own_are_in_its_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bundle.make_monitor_root(root, Launch(argv=("/bin/monitor",), files=_FILES))
    for path, content in _FILES.items():
        inside = root / path.relative_to("/")
        assert inside.read_bytes() == content
        assert stat.S_IMODE(inside.stat().st_mode) == 0o444
        assert stat.S_IMODE(inside.parent.stat().st_mode) & 0o555 == 0o555, "a monitor need not be root"


def test_a_root_without_files_is_as_before(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bundle.make_monitor_root(root, Launch(argv=("/bin/monitor",)))
    assert not (root / "unikernel").exists()
