"""An OCI runtime that hangs, fails, or says that it failed, when told to: a program around runc, as `engine.path`."""

from __future__ import annotations

import enum
from pathlib import Path

from tests.integration import paths

_PROGRAM = """#!/bin/sh
# Told by files beside it.
while [ -e "{directory}/hang" ]; do sleep 0.02; done
if [ -e "{directory}/fail" ]; then echo "the engine was told to fail" >&2; exit 1; fi
if [ -e "{directory}/lie" ]; then {engine} "$@"; echo "the engine was told to lie" >&2; exit 1; fi
exec {engine} "$@"
"""


class Trouble(enum.StrEnum):
    """What it can be told, by the file's name."""

    HANG = "hang"
    FAIL = "fail"
    LIE = "lie"


class FaultyEngine:
    """The program at `path`. Its name is runc's, as the daemon names its state directory by it."""

    def __init__(self, base: Path) -> None:
        self._directory = base / "faulty"
        self._directory.mkdir()
        self.path = self._directory / "runc"
        # runc works in every cgroup layout, crun not.
        self.path.write_text(_PROGRAM.format(directory=self._directory, engine=paths.program("runc")))
        self.path.chmod(0o755)

    def be(self, trouble: Trouble) -> None:
        """From the next run on."""
        (self._directory / trouble).touch()

    def heal(self) -> None:
        """Be runc again; runs that hang go on."""
        for trouble in Trouble:
            (self._directory / trouble).unlink(missing_ok=True)
