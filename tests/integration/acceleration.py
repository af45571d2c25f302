"""What QEMU's probe found on this machine, kept between all tests' daemons: it takes four seconds where KVM hangs.

The file says itself what it holds for (program, boot, kernel, probe), so a stale one is probed again by the daemon.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration import paths

_NAME = "acceleration.json"


def lend(run_dir: Path) -> None:
    """Put what is known into a daemon's run directory, before it starts."""
    if (paths.CACHE / _NAME).exists():
        run_dir.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(paths.CACHE / _NAME, run_dir / _NAME)


def keep(run_dir: Path) -> None:
    """Keep what a daemon found out."""
    if (run_dir / _NAME).exists():
        draft = paths.CACHE / f".{_NAME}.{run_dir.parent.name}"
        shutil.copyfile(run_dir / _NAME, draft)
        draft.replace(paths.CACHE / _NAME)
