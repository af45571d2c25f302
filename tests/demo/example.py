"""`make example`: a kernel and an initrd to try things with, in build/example: Debian's cloud kernel, and busybox that
serves a page on port 80. They are the tests' own guest."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration import guest


def write(directory: Path) -> None:
    """Write `vmlinuz` and `initrd` into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(guest.kernel(), directory / "vmlinuz")
    (directory / "initrd").write_bytes(guest.initrd())


if __name__ == "__main__":
    write(Path("build/example"))
    print("build/example/vmlinuz and build/example/initrd: a Linux guest that serves a page on port 80")
