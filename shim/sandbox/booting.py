"""From a monitor that runs to a guest that does, where the monitor is told its machine over its control socket.

The engine's start leaves such a monitor waiting. What it is to be told is in the container's record from its creation
on, and so are its taps, which are persistent: a daemon that is killed anywhere before the guest runs leaves all that
the next one needs, which asks the monitor what it knows already and tells it the rest (`adoption`).
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from shim.errors import Bug, NodeFault, TimedOut
from shim.monitors.base import Booted, Monitor
from shim.network.pod import open_tap_at
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord

#: Seconds that a monitor has for it: it maps the guest's memory, and reads the kernel and the initrd.
PATIENCE = 20.0


def booted(monitor: Monitor) -> bool:
    """Whether it is told its machine over its control socket: it needs one, and its taps must outlive this daemon."""
    return isinstance(monitor, Booted)


async def boot(node: Node, record: ContainerRecord) -> None:
    """Have the container's monitor make its machine and run it; harmless where it does already.

    Raises NodeFault with the monitor's words where it refuses, Unreachable where it ends, TimedOut where it does not
    answer, NetworkFault where a tap is not there.
    """
    monitor, own = node.monitors[record.monitor], record.own_bundle
    if own is None or not isinstance(monitor, Booted):
        raise Bug(f"{record.monitor} is told no machine", subject=record.container)
    try:
        async with asyncio.timeout(PATIENCE):
            await monitor.boot(own, record.machine, functools.partial(_open_tap, record))
    except TimeoutError:
        raise TimedOut(
            f"{record.monitor} does not answer on its control socket within {PATIENCE:g} s", subject=record.container
        ) from None
    except NodeFault as error:
        raise NodeFault(f"{record.monitor} does not boot its guest: {error}", subject=record.container) from error


async def _open_tap(record: ContainerRecord, name: str) -> int:
    if record.plumbing is None:
        raise Bug(f"the tap {name} was never made", subject=record.container)
    return await open_tap_at(Path(record.plumbing.netns), record.plumbing.plan, name)
