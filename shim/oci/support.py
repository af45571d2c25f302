"""Which guest runs on which monitor, and how that is known. docs/support.md is this table for people."""

from __future__ import annotations

import enum


class Known(enum.StrEnum):
    """How it is known that a guest runs on a monitor. The values are the words of docs/support.md."""

    RUN = "run here"
    DOUBLE = "tested against a double"
    GOLDEN = "by golden file: not run"
    NO = "no"


_RUN, _DOUBLE, _GOLDEN = Known.RUN, Known.DOUBLE, Known.GOLDEN
#: What works with what: by guest, the monitors that it runs on, the default first. What is not here does not work.
#: A Solo5 kernel is built for one tender and names it itself.
SUPPORT: dict[str, dict[str, Known]] = {
    "solo5": {"spt": _DOUBLE, "hvt": _DOUBLE},
    "rumprun": {"spt": _DOUBLE, "hvt": _DOUBLE},
    "mirage": {"spt": _DOUBLE, "hvt": _DOUBLE},
    "unikraft": {"qemu": _DOUBLE, "firecracker": _DOUBLE},
    "linux": {"qemu": _RUN, "firecracker": _DOUBLE, "cloud-hypervisor": _DOUBLE},
    "hermit": {"qemu": _DOUBLE},
    "osv": {"qemu": _DOUBLE, "firecracker": _DOUBLE, "cloud-hypervisor": _GOLDEN},
    # QEMU starts it by PVH, and then it reads no command line (docs/guests/nanos.md).
    "nanos": {"firecracker": _GOLDEN},
}
GUESTS = tuple(SUPPORT)
MONITORS = ("spt", "hvt", "qemu", "firecracker", "cloud-hypervisor")


def monitors_of(guest: str) -> tuple[str, ...]:
    """The monitors that a guest runs on, the default first."""
    return tuple(SUPPORT[guest])


def known(guest: str, monitor: str) -> Known:
    """How it is known that `guest` runs on `monitor`."""
    return SUPPORT[guest].get(monitor, Known.NO)
