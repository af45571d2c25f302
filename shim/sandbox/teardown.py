"""Removing every trace of a container, from its record alone.

The one inverse of creation: a creation that fails, a Delete, and a daemon that finds a dead predecessor's leftovers
all come here. Each step is harmless when there is nothing to do, and a step that fails does not keep the others from
being tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from shim import log, telemetry
from shim.errors import Bug, NodeFault, ShimError, Unexpected
from shim.network.pod import undo_at
from shim.oci import cgroup
from shim.oci.bundle import remove
from shim.oci.rootfs import unmount_all
from shim.sandbox import disks
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Restored, about
from shim.sandbox.record import ContainerRecord
from shim.telemetry import Leftover, Phase, Tally

_log = log.get(__name__)


async def restore_network(node: Node, record: ContainerRecord) -> None:
    """Give the pod's interfaces their configuration back, and note that it was done."""
    if record.plumbing is None:
        return
    plumbing = record.plumbing
    # The namespace may have been deleted under us, and what was in it with it: then there is nothing to undo.
    with telemetry.phase(Phase.UNPLUMB):
        if await asyncio.to_thread(Path(plumbing.netns).exists):
            await undo_at(Path(plumbing.netns), plumbing.plan)
    record.plumbing = None
    node.announce(Restored(**about(record)))
    try:
        node.journal.write(record.key, record)
    except NodeFault as error:
        # The undo may be repeated, so a record that still speaks of it does no harm; an end must not wait for a disk.
        _log.error("journal", container=record.container, error=str(error))


async def _engine_forgets(node: Node, record: ContainerRecord) -> None:
    """Have the engine remove a container, and what it forgot of its cgroups."""
    engine = node.engine.within(record.namespace)
    # Not by force where its init has ended: runc then waits for whoever is its parent by now to collect it.
    force = record.exit is None
    try:
        await engine.delete(record.container, force=force)
    except Unexpected as error:
        # runc gives a cgroup a sixth of a second to get empty (libcontainer/cgroups, RemovePaths); a busy node takes
        # longer to see its last process off.
        _log.warning("the engine is asked again", container=record.container, error=str(error))
        await asyncio.to_thread(cgroup.sweep, record.cgroup)
        await engine.delete(record.container, force=force)
    else:
        await asyncio.to_thread(cgroup.sweep, record.cgroup)


async def _in_phase(phase: Phase, step: Awaitable[None]) -> None:
    with telemetry.phase(phase):
        await step


async def dismantle(node: Node, record: ContainerRecord) -> None:
    """Undo everything the record speaks of and forget it. Raises the first failure after trying all steps; the record
    then stays, for the next attempt."""
    with telemetry.phase(
        Phase.DISMANTLE, container=record.container, sandbox=record.sandbox, namespace=record.namespace
    ):
        await _dismantle(node, record)


async def _dismantle(node: Node, record: ContainerRecord) -> None:
    failures: list[Exception] = []

    async def attempt(what: str, step: Awaitable[None]) -> None:
        try:
            await step
        except Exception as error:
            _log.error("cleanup step failed", step=what, container=record.container, error=str(error))
            failures.append(error)

    if record.engine:
        await attempt("engine", _in_phase(Phase.ENGINE_DELETE, _engine_forgets(node, record)))
    node.stdio.forget(record.streams)
    await attempt("network", restore_network(node, record))
    if record.rootfs is not None:
        await attempt("rootfs", _in_phase(Phase.UNMOUNT, asyncio.to_thread(unmount_all, record.rootfs)))
    if record.disks is not None:
        await attempt("disks", _in_phase(Phase.DISKS, asyncio.to_thread(disks.remove, record.disks)))
    if not failures and record.own_bundle is not None:
        await attempt("bundle", asyncio.to_thread(remove, record.own_bundle))
    if failures:
        first = failures[0]
        if isinstance(first, ShimError):
            raise first
        raise Bug(f"not everything could be removed: {first}", subject=record.container) from first
    node.journal.forget(record.key)


async def remove_leftover(node: Node, record: ContainerRecord) -> None:
    """`dismantle` a container that nobody will ask for, and count what its record speaks of. Raises as that does."""
    left = {
        Leftover.CONTAINER: int(record.engine),
        Leftover.TAP: len(record.plumbing.plan.nics) if record.plumbing is not None else 0,
        Leftover.MOUNT: int(record.rootfs is not None),
        Leftover.DISK: int(record.disks is not None),
    }
    await dismantle(node, record)
    for kind, many in left.items():
        if many:
            telemetry.count(Tally.LEFTOVER, kind, many)
