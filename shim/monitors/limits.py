"""What a monitor cannot be told or cannot give, refused before anything is started."""

from __future__ import annotations

from shim.errors import InvalidRequest, Unsupported
from shim.monitors.base import Machine, Monitor


def check(machine: Machine, monitor: Monitor) -> None:
    """Raise Unsupported or InvalidRequest where `monitor`, which has one kind of machine, has not what is asked for."""
    if machine.kind:
        raise Unsupported(
            f"{monitor.name} has one kind of machine, and {machine.kind} is not it",
            subject=machine.kind,
            remedy="leave the machine out, or take the monitor qemu",
        )
    if machine.directories and not monitor.shares_directories:
        raise Unsupported(
            f"{monitor.name} shares no directories with a guest",
            subject=machine.directories[0].tag,
            remedy="give the guest a disk, or take the monitor qemu",
        )
    check_cpus(machine, monitor)


def check_cpus(machine: Machine, monitor: Monitor) -> None:
    """Raise InvalidRequest for processors that `monitor` does not give."""
    if not 1 <= machine.cpus <= monitor.cpus:
        raise InvalidRequest(
            f"{monitor.name} gives a guest 1 to {monitor.cpus} processors, not {machine.cpus}",
            subject="resources.limits.cpu",
        )


def command_line(machine: Machine, monitor: str, room: int) -> str:
    """The guest's words as one string, for a loader that takes printable ASCII only and `room` bytes, its final NUL
    included (rust-vmm/linux-loader, src/cmdline/mod.rs). Raises InvalidRequest naming the word."""
    for word in machine.words:
        if not all(" " <= character <= "~" for character in word):
            raise InvalidRequest(f"{monitor} takes printable ASCII only on a guest's command line", subject=word)
    line = " ".join(machine.words)
    if len(line) >= room:
        raise InvalidRequest(
            f"the guest's command line has {len(line)} bytes, and {monitor} takes {room - 1}",
            subject=f"{line[:40]}…",
            remedy="give the container fewer arguments and variables",
        )
    return line
