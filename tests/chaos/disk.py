"""The run directory as a small file system of its own, which can be full, read-only, or hang.

An ext4 in a loop device where the machine has those: it can be frozen (fsfreeze(8)), which is what a disk that hangs
looks like. Else a tmpfs, which cannot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path

_SIZE = 8 << 20
_BALLAST = ".ballast"


class RunDisk:
    """Mounted at `point` between `mount` and `unmount`; `image` is the file it is in."""

    def __init__(self, point: Path, image: Path) -> None:
        self.point = point
        self._image = image
        self.freezes = False
        self._frozen = False

    def mount(self) -> None:
        """An empty one. Raises CalledProcessError."""
        self.point.mkdir(mode=0o700, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        # No reserve for root, who is who writes here; no lazy initialisation, which would go on in the background.
        make = [
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            "-O",
            "^resize_inode",
        ]
        loop = ["mount", "-o", "loop", "-t", "ext4", os.fspath(self._image), os.fspath(self.point)]
        self.freezes = all(
            subprocess.run(command, capture_output=True, check=False).returncode == 0
            for command in ([*make, os.fspath(self._image)], loop)
        )
        if not self.freezes:
            self._run("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "tmpfs", os.fspath(self.point))
        self.point.chmod(0o700)

    def unmount(self) -> None:
        """With whatever is below it, and even if somebody is in it."""
        self.heal()
        self._run("umount", "--lazy", os.fspath(self.point))

    def fill(self) -> None:
        """Leave not one block."""
        with (self.point / _BALLAST).open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(4096))

    def make_read_only(self, *, within: float = 0.5) -> bool:
        """Whether it could be done: the kernel refuses while a file is open for writing."""
        deadline = time.monotonic() + within
        while True:
            try:
                self._run("mount", "-o", "remount,ro", os.fspath(self.point))
                return True
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.01)

    def freeze(self) -> None:
        """Whoever writes waits, until `heal`. Nothing on a tmpfs."""
        if self.freezes:
            self._run("fsfreeze", "--freeze", os.fspath(self.point))
            self._frozen = True

    def heal(self) -> None:
        """Undo all of the above; harmless where nothing was done."""
        if self._frozen:
            self._run("fsfreeze", "--unfreeze", os.fspath(self.point))
            self._frozen = False
        if not os.access(self.point, os.W_OK):
            self._run("mount", "-o", "remount,rw", os.fspath(self.point))
        try:
            (self.point / _BALLAST).unlink(missing_ok=True)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)
