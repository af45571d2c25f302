"""A node as the installer sees it: files below a root, and programs run with that as their root."""

from __future__ import annotations

import os
import posixpath
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from shim.errors import NodeFault

#: Runs a program with the root as its own and returns (status, stdout, stderr).
Runner = Callable[[Path, Sequence[str]], tuple[int, str, str]]
# What systemd gives its services (systemd.exec(5), DefaultPath), so where containerd looks for shims.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Restarting containerd takes a second; a minute is a hang.
_PATIENCE = 60.0
# MAXSYMLINKS of the kernel (linux/namei.h).
_MOST_LINKS = 40


def chrooted(root: Path, argv: Sequence[str]) -> tuple[int, str, str]:
    """Run `argv` in the root by chroot(8): a pod has the node's sockets below it, which are all that systemctl needs.

    Raises NodeFault where it takes longer than a minute.
    """
    command = list(argv) if root == Path("/") else ["chroot", os.fspath(root), *argv]
    # systemctl does nothing in what it takes for a chroot made for packaging, unless this is set.
    env = {"PATH": _PATH, "SYSTEMD_IGNORE_CHROOT": "1", "LC_ALL": "C.UTF-8", "OTEL_SDK_DISABLED": "true"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise NodeFault(f"did not end within {_PATIENCE:g} s", subject=" ".join(argv)) from error
    return done.returncode, done.stdout, done.stderr


class Node:
    """The node whose root is at `root`. Paths in arguments are the node's own, absolute, and never leave the root."""

    def __init__(self, root: Path, runner: Runner = chrooted) -> None:
        self.root = root
        self._runner = runner

    def path(self, name: str) -> Path:
        """Where the node's `name` lies here, with links followed within the node's root, the last component included.

        Raises NodeFault where links go in circles.
        """
        parent, last = posixpath.split(posixpath.normpath(name))
        links = 0
        while True:
            here = self.within(parent) / last
            if not here.is_symlink():
                return here
            links += 1
            if links > _MOST_LINKS:
                raise NodeFault("links go in circles", subject=name)
            parent, last = posixpath.split(posixpath.normpath(posixpath.join(parent, here.readlink())))

    def within(self, directory: str) -> Path:
        """Where the node's `directory` lies here, with links followed within the root. Need not be there."""
        reached = "/"
        for part in [each for each in directory.split("/") if each]:
            step = posixpath.join(reached, part)
            # A link's own path has been resolved up to it, so what remains is its last component.
            here = self.root / step.lstrip("/")
            reached = "/" + os.fspath(self.path(step).relative_to(self.root)) if here.is_symlink() else step
        return self.root / reached.lstrip("/")

    def entry(self, name: str) -> Path:
        """Where the node's `name` lies here, itself perhaps a link, which is not followed."""
        parent, last = posixpath.split(posixpath.normpath(name))
        return self.within(parent) / last

    def run(self, *argv: str) -> str:
        """The output of a program of the node. Raises NodeFault with its last words where it fails."""
        status, out, err = self._runner(self.root, argv)
        if status != 0:
            words = (err or out).strip().splitlines()
            raise NodeFault(
                f"ended with {status}: {words[-1] if words else 'and said nothing'}", subject=" ".join(argv)
            )
        return out

    @property
    def booted(self) -> bool:
        """Whether systemd runs the node (sd_booted(3))."""
        return self.entry("/run/systemd/system").is_dir()

    def systemctl(self, *words: str) -> None:
        """Ask the node's systemd; where none runs (an image in the making) nothing is asked. Raises NodeFault."""
        if self.booted:
            self.run("systemctl", *words)
