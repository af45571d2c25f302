"""Which of the machine's boots this is."""

from __future__ import annotations

from pathlib import Path

_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)


def boot_id() -> str:
    """A name that no other boot of any machine has. Raises OSError where there is no /proc."""
    return _ID.read_text().strip()
