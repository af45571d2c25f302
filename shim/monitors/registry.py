"""Every monitor, by the name that annotations use."""

from __future__ import annotations

from pathlib import Path

from shim.config import Monitors
from shim.monitors.base import Monitor, Run
from shim.monitors.qemu import Qemu
from shim.monitors.solo5 import Solo5


def monitors(config: Monitors, run: Run, state: Path) -> dict[str, Monitor]:
    """All monitors as configured; nothing is looked for before it is needed. `state` keeps what probes found."""
    every: tuple[Monitor, ...] = (
        Solo5("spt", config.spt.path, run),
        Solo5("hvt", config.hvt.path, run),
        Qemu(config.qemu, run, state),
    )
    return {monitor.name: monitor for monitor in every}
