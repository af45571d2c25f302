"""A command on a pseudo-terminal, as a person sees it: a screen (pyte) of so many columns, and a keyboard."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import pyte

from tests.integration import paths
from tests.integration.daemon import Daemon

_ROWS = 200  # so many that nothing scrolls away


class OnTerminal:
    """The command, started. Use it as a context; at its end whatever still runs is ended."""

    def __init__(self, argv: Sequence[str], *, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        """`env` is added to an environment with a terminal that has colours, and a UTF-8 locale."""
        self.raw = b""
        self._screen = pyte.Screen(columns, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._master, self.slave = pty.openpty()
        self._size(columns, _ROWS)
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self.slave)

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As a person drags the window."""
        self._size(columns, rows)
        self._screen.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        """Press these keys."""
        os.write(self._master, text)

    def mode(self) -> list[Any]:
        """The terminal's settings (termios(3))."""
        return termios.tcgetattr(self.slave)

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without what is empty below."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    def until(self, shown: str | Callable[[], object], *, within: float = 10.0) -> None:
        """Wait until the screen has it. Raises AssertionError with the screen."""
        deadline = time.monotonic() + within
        while not (shown in self.text if isinstance(shown, str) else shown()):
            assert time.monotonic() < deadline, f"{shown} is not shown:\n{self.text}"
            self._read(0.05)

    def finish(self, *, within: float = 15.0) -> int:
        """Wait for the command's end; its exit status."""
        deadline = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self._read(0.05)
        self._read(0.0)
        return self.process.returncode

    def _read(self, wait: float) -> None:
        while select.select([self._master], (), (), wait)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._master, 65536)
                self.raw += data
                self._stream.feed(data)
            wait = 0.0


def command_line(daemon: Daemon, *words: str) -> list[str]:
    """`unikernel-shim` as an operator of this daemon types it."""
    return [str(paths.DAEMON), "--config", str(daemon.config), *words]
