from __future__ import annotations

from pathlib import Path

import pytest

from shim.monitors import acceleration, qemu


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with a /dev/kvm."""
    path = tmp_path / "kvm"
    path.write_text("")
    monkeypatch.setattr(acceleration, "KVM", path)
    monkeypatch.setattr(qemu, "KVM", path)
    return path
