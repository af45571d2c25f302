"""Every monitor, by the name that annotations use."""

from __future__ import annotations

from pathlib import Path

from shim.config import Monitors
from shim.monitors.base import Monitor, Run
from shim.monitors.cloud_hypervisor import CloudHypervisor
from shim.monitors.firecracker import Firecracker
from shim.monitors.qemu import Qemu
from shim.monitors.solo5 import Solo5


def monitors(config: Monitors, run: Run, state: Path) -> dict[str, Monitor]:
    """All monitors as configured; nothing is looked for before it is needed. `state` keeps what probes found."""
    every: tuple[Monitor, ...] = (
        Solo5("spt", config.spt.path, run),
        Solo5("hvt", config.hvt.path, run),
        Qemu(config.qemu, run, state),
        Firecracker(config.firecracker, run),
        CloudHypervisor(config.cloud_hypervisor, run),
    )
    return {monitor.name: monitor for monitor in every}
