"""After a restart: what a former daemon left is adopted whole, or removed whole.

A container is adopted when its init still lives: the record's pid and start time name it beyond doubt. It is removed
when its creation was not finished. One that died meanwhile stays known until containerd deletes it, so that its exit
can be asked for; its network is given back at once.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from shim import log, stats, telemetry
from shim.errors import ShimError
from shim.oci import bundle
from shim.process import pidfd
from shim.process.relay import Overheard
from shim.process.stdio import Descriptors
from shim.sandbox import disks
from shim.sandbox.container import Container
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Adopted, LeftoverRemoved, about
from shim.sandbox.record import ContainerRecord
from shim.sandbox.sandbox import Sandbox, remove_own
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import Status
from shim.sandbox.teardown import remove_leftover
from shim.telemetry import Leftover, Tally

_log = log.get(__name__)


async def adopt_all(node: Node, sandboxes: Sandboxes) -> None:
    """Go through the journals; a record that can be neither adopted nor removed is logged and kept."""
    for directory in await asyncio.to_thread(_remove_forgotten, node):
        node.announce(LeftoverRemoved(what=os.fspath(directory)))
    for pod in (await asyncio.to_thread(node.pods.records)).values():
        sandboxes.restore(Sandbox.of(node, pod))
    records = (await asyncio.to_thread(node.journal.records)).values()
    for record in records:
        try:
            await _adopt(node, sandboxes, record)
        except (ShimError, OSError) as error:
            _log.error("leftover", container=record.container, namespace=record.namespace, error=str(error))
    for namespace, id in {(record.namespace, record.doomed) for record in records if record.doomed}:
        try:
            await sandboxes.destroy_pod(namespace, id)
        except ShimError as error:
            _log.error("leftover", id=id, namespace=namespace, error=str(error))
    node.stdio.rendezvous.sweep()


def _remove_forgotten(node: Node) -> list[Path]:
    disks.sweep(node.config.storage.directory)
    return _remove_unspoken(node)


def _remove_unspoken(node: Node) -> list[Path]:
    """Directories that no record speaks of: of ends that could not remove a file, as on a full or read-only disk.

    Returns those that were removed.
    """
    removed: list[Path] = []
    for kept, parent, remove in (
        (node.pods.keys(), "sandboxes", remove_own),
        (node.journal.keys(), "containers", bundle.remove),
    ):
        for directory in (node.config.run_dir / parent).iterdir():
            if directory.name not in kept:
                _log.warning("removing what no record speaks of", path=os.fspath(directory))
                remove(directory)
                telemetry.count(Tally.LEFTOVER, Leftover.DIRECTORY)
                removed.append(directory)
    return removed


async def _adopt(node: Node, sandboxes: Sandboxes, record: ContainerRecord) -> None:
    if not record.pid:
        # Create had not returned, so containerd knows of no such task.
        await _remove(node, record, "a container whose creation was not finished")
        return
    alive = record.exit is None and _lives(record)
    # containerd has removed the task, while no daemon ran or on a disk that let no record be removed. What still runs
    # serves on: its pod may be there, and its next life takes its place.
    removed = not await asyncio.to_thread(record.bundle.exists)
    try:
        spec = await asyncio.to_thread(bundle.read_spec, record.own_bundle or record.bundle)
    except ShimError:
        removed = True
    if removed and not (alive and record.own_bundle is not None):
        await _remove(node, record, "a container that containerd has removed")
        return
    container = Container(node, record, spec, sandboxes.home(record.namespace, record.sandbox).lock)
    container.init.pid = record.pid
    sandboxes.adopt(container)
    # The record is written before the start that it speaks of, which the former daemon may not have come to.
    engine = node.engine.within(record.namespace)
    if alive and record.running and await asyncio.to_thread(engine.awaits_start, record.container):
        record.running = False
    if record.running and (alive or record.exit is None):
        container.init.become(Status.RUNNING)
    if record.exit is not None:
        await node.stdio.end(record.streams, 0)
        container.init.end(record.exit)
        return
    # The kernel's word: a journal could not say which came first, the pause or the daemon's end.
    if alive and record.running and await asyncio.to_thread(stats.is_frozen, record.pid):
        container.init.become(Status.PAUSED)
    if alive and not record.streams.terminal:
        await _reopen(node, container)
    else:
        await node.stdio.end(record.streams, 0)
    container.supervise(node.reaper.adopt(record.pid, record.started))
    if alive and record.running and record.machine:
        container.finish_boot()
    telemetry.count(Tally.ADOPTED, container.kind)
    _log.info("adopted", container=record.container, pid=record.pid, alive=alive)
    node.announce(Adopted(**about(record), pid=record.pid, alive=alive))


async def _remove(node: Node, record: ContainerRecord, what: str) -> None:
    _log.warning("removing a leftover", container=record.container, what=what)
    await remove_leftover(node, record)
    node.announce(LeftoverRemoved(**about(record), what=what))


def _lives(record: ContainerRecord) -> bool:
    try:
        return pidfd.start_time(record.pid) == record.started
    except ProcessLookupError:
        return False


async def _reopen(node: Node, container: Container) -> None:
    """Take up the relay of a monitor's stderr, the hold on stdin, and what callers read and write over RPC; the other
    streams are the process's own."""
    record = container.record
    opened = container.init.descriptors = Descriptors()
    try:
        opened.child[0], guard = node.stdio.stdin(record.streams, adopted=True)
        if guard is not None:
            opened.hold_stdin(guard)
        if not record.streams.stdout.startswith("binary://"):
            out, err = await node.stdio.outputs(record.streams, record.container, record.namespace, adopted=True)
            opened.child[1] = out
            if record.stderr is None:
                opened.child[2] = err
            else:
                container.stderr = Overheard(record.stderr, err)
        opened.close_child()
    except (ShimError, OSError) as error:
        _log.warning("streams could not be taken up again", container=record.container, error=str(error))
