"""The programs that make file systems, how they are found, and how they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from shim.process.spawn import Completed


class Run(Protocol):
    """How a tool is run: argv[0] absolute, with `env` and no other variables, killed after `timeout` seconds with
    TimedOut, and when the caller is cancelled."""

    def __call__(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None
    ) -> Awaitable[Completed]:
        """The tool's end and output."""
        ...
