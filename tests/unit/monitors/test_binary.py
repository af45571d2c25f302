"""What of the node a monitor is shown."""

from __future__ import annotations

import os
from pathlib import Path

from shim.config import Monitors
from shim.monitors.binary import identity, locate, shares
from shim.monitors.registry import monitors
from tests.unit.monitors.fake import FakeRun, program


def test_a_program_of_the_distribution() -> None:
    shared = shares(Path("/usr/bin/qemu-system-x86_64"))
    assert Path("/usr") in shared
    assert not any(path.is_symlink() for path in shared)
    assert Path("/usr/bin/qemu-system-x86_64") not in shared


def test_a_program_elsewhere(tmp_path: Path) -> None:
    path = program(tmp_path, "solo5-spt")
    assert path in shares(path)


def test_a_link_to_a_program(tmp_path: Path) -> None:
    path = program(tmp_path, "solo5-spt")
    (tmp_path / "link").symlink_to(path)
    assert locate(os.fspath(tmp_path / "link"), "spt") == path


def test_a_replaced_program_is_another(tmp_path: Path) -> None:
    path = program(tmp_path, "x")
    before = identity(path)
    path.write_text("newer")
    assert identity(path) != before


def test_every_monitor_is_known_by_its_name(tmp_path: Path) -> None:
    every = monitors(Monitors(), FakeRun(lambda argv: None), tmp_path)
    assert {name: monitor.name for name, monitor in every.items()} == {
        name: name for name in ("spt", "hvt", "qemu", "firecracker", "cloud-hypervisor")
    }
