"""What a QEMU answers to the shim's questions, on nodes where guests run under one accelerator or another."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from shim.monitors import probe_x86
from shim.process.spawn import Completed

_TICKS = 142_590_000  # in 54.9 ms: 2.596 GHz
#: What the probe leaves behind, and the rate that it has measured.
PASSED = Completed(probe_x86.STATUS, struct.pack("<5I", _TICKS + 9, _TICKS, _TICKS + 5, _TICKS * 2, _TICKS + 1), b"")
KHZ = 2_596_106
_VERSION = Completed(0, b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\n", b"")


def accel(argv: Sequence[str]) -> str:
    """The accelerator of a command line, "" where it has none."""
    return argv[argv.index("-accel") + 1].split(",")[0] if "-accel" in argv else ""


def works(*accelerators: str) -> Callable[[Sequence[str]], Completed | None]:
    """A QEMU that says its version, and whose guests run under these."""

    def answer(argv: Sequence[str]) -> Completed | None:
        if argv[-1] == "--version":
            return _VERSION
        return PASSED if accel(argv) in accelerators else None

    return answer
