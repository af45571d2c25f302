"""What is left room for beside a guest: never less than was seen to be needed (docs/runtimeclass.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from shim.config import Monitors
from shim.monitors.registry import monitors
from tests.unit.monitors.fake import FakeRun

# The least limit under which a guest that wrote to all its memory was not killed, less that memory; in MiB.
_SEEN = [
    ("spt", 32, 1),
    ("spt", 512, 1),
    ("spt", 2048, 4),
    ("hvt", 32, 1),
    ("hvt", 512, 4),
    ("hvt", 2048, 14),
    ("qemu", 128, 67),
    ("qemu", 1024, 69),
    ("firecracker", 128, 7),
    ("firecracker", 1024, 6),
    ("firecracker", 2048, 10),
]


@pytest.mark.parametrize(("name", "memory", "seen"), _SEEN)
def test_what_was_seen_has_room(name: str, memory: int, seen: int, tmp_path: Path) -> None:
    every = monitors(Monitors(), FakeRun(lambda argv: None), tmp_path)
    assert seen < every[name].overhead(memory) <= seen + 24


@pytest.mark.parametrize("name", ["spt", "hvt", "qemu", "firecracker", "cloud-hypervisor"])
def test_a_larger_guest_needs_more(name: str, tmp_path: Path) -> None:
    monitor = monitors(Monitors(), FakeRun(lambda argv: None), tmp_path)[name]
    assert monitor.overhead(1) < monitor.overhead(1024) < monitor.overhead(16384)
