"""Couriers without containerd: a directory with a configuration, whose couriers start a daemon for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration import paths
from tests.integration.daemon import environment
from tests.integration.process import answers


class Place:
    """A run directory with no daemon in it, and couriers that find it."""

    def __init__(self, base: Path, config: str = "") -> None:
        self.base = base
        self.run_dir = base / "run"
        self.socket = self.run_dir / "shim.ttrpc"
        self.config = base / "config.toml"
        self.config.write_text(f'run_dir = "{self.run_dir}"\n{config}\n[storage]\ndirectory = "{base / "storage"}"\n')
        self.bundle = base / "bundle"
        self.bundle.mkdir()

    def courier(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """One run. Without `stdin` it is /dev/null."""
        given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [str(paths.COURIER), *arguments],
            env={**os.environ, **environment(self.config), "NAMESPACE": "test"},
            cwd=self.bundle,
            capture_output=True,
            timeout=40,
            check=False,
            **given,
        )
        return done

    def daemon(self, path: Path | None = None) -> int:
        """The pid of the daemon that answers at `path`, by default the node's, as the kernel tells it (SO_PEERCRED,
        unix(7)); 0 when none does."""
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(os.fspath(path or self.socket))
            except OSError:
                return 0
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("3i", credentials)[0])

    def daemons(self) -> set[int]:
        """Every process that has this place's configuration in its environment."""
        found = set()
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.fsencode(self.config) in (process / "environ").read_bytes():
                        found.add(int(process.name))
        return found

    def close(self) -> None:
        """End the daemons that couriers started."""
        for pid in self.daemons():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self.daemons():
            assert time.monotonic() < deadline, "the daemon does not end"
            time.sleep(0.02)
        assert not answers(self.socket)


@contextlib.contextmanager
def a_place(config: str = "") -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="uksco", dir=paths.TEMPORARY) as base:
        made = Place(Path(base), config)
        try:
            yield made
        finally:
            made.close()
