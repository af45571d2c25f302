"""A server under test: started in a node's network, waited for, stopped by its process id, its output kept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.node import Node


class Server:
    """A process that answers on a unix socket. Its stdout and stderr go to `log`."""

    def __init__(
        self, node: Node, name: str, command: Sequence[str], socket_path: Path, env: Mapping[str, str]
    ) -> None:
        self.node = node
        self.name = name
        self.log = node.base / f"{name}.log"
        self.socket = socket_path
        self._command = node.inside(*command)
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process. Raises AssertionError if it is not."""
        assert self._process is not None and self._process.poll() is None, f"{self.name} is not running\n{self.tail()}"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the process that was started lives."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is not None

    def spawn(self, **environment: str) -> None:
        """Start it, and wait for nothing; `environment` is added for this life alone."""
        assert self._process is None, f"{self.name} is running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**self._env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, *, within: float = 20.0) -> None:
        """Start it and wait until its socket takes connections. Raises AssertionError with its last words."""
        self.spawn()
        assert self._process is not None
        deadline = time.monotonic() + within
        while not self.listens():
            assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}\n{self.tail()}"
            assert time.monotonic() < deadline, f"{self.name} has no socket after {within} s\n{self.tail()}"
            time.sleep(0.01)

    def listens(self) -> bool:
        """Whether it takes connections wherever it is spoken to."""
        return answers(self.socket)

    def stop(self, *, within: float = 10.0) -> int:
        """SIGTERM, and SIGKILL after `within` seconds; its exit status. Nothing if it does not run."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def died(self, *, within: float = 10.0) -> None:
        """Wait until it has ended by itself; it can then be started again. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        self._process.wait(within)
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def tail(self, lines: int = 60) -> str:
        """The end of its log, with a title."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"--- {self.name}, last lines of {self.log} ---", *text])


def answers(path: Path) -> bool:
    """Whether something accepts connections on the unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.fspath(path))
        except OSError:
            return False
    return True
