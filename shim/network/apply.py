"""Carrying a plan out, and taking it back.

All of it happens in one visit to the namespace, where neighbouring netlink requests travel together. Undoing runs every
inverse of the plan whatever was done: each accepts that its work is done already, so the same code rolls back half a
plan, repeats an interrupted undo, and cleans up after a crash.

Nobody waits for the kernel to take devices down, which takes it tens of milliseconds each: the interface has its
configuration back before that, and `Namespace.background` sees to the rest.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from shim import log
from shim.errors import NetworkFault
from shim.network.kernel.namespace import Namespace
from shim.network.kernel.netlink import Netlink, Request, open_socket
from shim.network.kernel.tap import close_tap
from shim.network.loading import loaded
from shim.network.operations import (
    AttachProgram,
    CreateBridge,
    CreateMacvtap,
    CreateTap,
    DelLink,
    LocalOperation,
    NetlinkOperation,
    Operation,
    Step,
)
from shim.network.plan import Plan, undoing
from shim.network.resolve import resolve
from shim.threads import settled

T = TypeVar("T")

_log = log.get(__name__)
_MAKING = (CreateBridge, CreateMacvtap)


async def apply(plan: Plan, namespace: Namespace) -> list[int]:
    """Plumb. Returns the taps' open descriptors in the order of `plan.guest`, fewer where taps are persistent; the
    caller owns them.

    Raises NetworkFault with the namespace as it was before; what could not be put back is in the error's notes.
    Cancellation, too, leaves the namespace as it was.
    """
    if plan.resolve:
        plan = plan.resolved(await resolve(namespace, plan.resolve))
    progress = _Progress()
    work = asyncio.ensure_future(namespace.run(lambda: _carry_out(plan.steps, namespace.netlink, progress)))
    try:
        await asyncio.shield(work)
    except BaseException as failure:
        await settled(work)
        await _roll_back(namespace, progress, failure)
        if isinstance(failure, OSError):
            raise _fault(failure, namespace) from failure
        raise
    return progress.descriptors


async def undo(plan: Plan, namespace: Namespace) -> None:
    """Put everything back as the plan found it. May be repeated, and may follow an `apply` that stopped anywhere.

    Goes through to the end whatever fails, also when cancelled; then raises NetworkFault naming what is not back.
    """
    work = asyncio.ensure_future(_take_back(plan.steps, namespace))
    try:
        failures = await asyncio.shield(work)
    except asyncio.CancelledError:
        await settled(work)
        raise
    except OSError as error:  # the socket or the thread failed, not an operation
        failures = [error]
    if failures:
        raise NetworkFault(
            "the pod's network could not be put back: " + "; ".join(_words(error) for error in failures),
            subject=os.fspath(namespace.path),
        ) from failures[0]


class _Progress:
    """What an `apply` has attempted so far. All of that is rolled back, since one step's work can take another's
    object along; but a device that was not made is not ours, so what was in the way stays."""

    def __init__(self) -> None:
        self.attempted: list[Step] = []
        self.descriptors: list[int] = []


def _carry_out(steps: Sequence[Step], netlink: Netlink, progress: _Progress) -> None:
    """Runs in the namespace. Stops at the first group in which something fails; raises OSError, NetworkFault."""
    for local, group in _groups(steps, lambda step: step.do):
        if local:
            _run_all(group, progress)
            continue
        with loaded(step.do for step in group if isinstance(step.do, AttachProgram)) as programs:
            sent = [(step, request) for step in group for request in _encode(step.do, programs)]
            outcomes = netlink.attempt([request for _, request in sent])
        failed = {id(step): outcome for (step, _), outcome in zip(sent, outcomes, strict=True) if outcome is not None}
        progress.attempted += [step for step in group if not (isinstance(step.do, _MAKING) and id(step) in failed)]
        for error in failed.values():
            raise error


def _run_all(steps: Sequence[Step], progress: _Progress) -> None:
    for step in steps:
        operation = step.do
        if not isinstance(operation, LocalOperation):
            continue
        if not isinstance(operation, CreateTap):
            progress.attempted.append(step)
        made = _run(operation)
        if isinstance(operation, CreateTap):
            progress.attempted.append(step)
        if made is None:
            continue
        if isinstance(operation, CreateTap) and operation.persistent:
            os.close(made)  # the device stays; its only queue must be free for the monitor
        else:
            progress.descriptors.append(made)


def _run(operation: LocalOperation) -> int | None:
    try:
        return operation.run()
    except OSError as error:
        raise OSError(error.errno, f"{operation.describe()}: {os.strerror(error.errno or 0)}") from error


def _encode(operation: Operation, programs: Mapping[int, int]) -> tuple[Request, ...]:
    if isinstance(operation, AttachProgram):
        return operation.encode_with(programs[id(operation)])
    return operation.encode() if isinstance(operation, NetlinkOperation) else ()


async def _take_back(steps: Sequence[Step], namespace: Namespace) -> list[OSError]:
    inverses = undoing(steps)
    devices = [operation for operation in inverses if isinstance(operation, DelLink)]
    try:
        return await namespace.run(lambda: _put_back(inverses[: len(inverses) - len(devices)], namespace.netlink))
    finally:
        if devices:
            namespace.background(lambda: _remove(devices))


def _remove(devices: Sequence[DelLink]) -> None:
    """Runs in the namespace, long after the caller went on: with a socket of its own."""
    netlink = Netlink(open_socket())
    try:
        sent = [(device, request) for device in devices for request in device.encode()]
        outcomes = netlink.attempt([request for _, request in sent])
    finally:
        netlink.close()
    for (device, _), outcome in zip(sent, outcomes, strict=True):
        if outcome is not None and not _settles(device, outcome):
            _log.error("a device is left behind", device=device.link, error=outcome.strerror)


def _put_back(operations: Sequence[Operation], netlink: Netlink) -> list[OSError]:
    """Runs in the namespace. Tries everything; returns what failed."""
    failures: list[OSError] = []
    refused: list[tuple[str, OSError]] = []
    gone: set[str] = set()
    for local, group in _groups(operations, lambda operation: operation):
        if local:
            failures += _run_tolerantly(group)
            continue
        sent = [
            (operation, request)
            for operation in group
            if isinstance(operation, NetlinkOperation)
            for request in operation.encode()
        ]
        outcomes = netlink.attempt([request for _, request in sent])
        for (operation, _), outcome in zip(sent, outcomes, strict=True):
            if outcome is None:
                continue
            if outcome.errno == errno.ENODEV:
                gone.add(operation.link)
            elif not _settles(operation, outcome):
                refused.append((operation.link, outcome))
    # Of an interface that is gone nothing can be put back, whatever words the kernel finds for it.
    return failures + [error for link, error in refused if link not in gone]


def _run_tolerantly(operations: Sequence[Operation]) -> list[OSError]:
    failures: list[OSError] = []
    for operation in operations:
        if isinstance(operation, LocalOperation):
            try:
                _run(operation)
            except OSError as error:
                if not _settles(operation, error):
                    failures.append(error)
    return failures


def _settles(operation: Operation, error: OSError) -> bool:
    return error.errno == errno.ENODEV or error.errno in operation.settled


async def _roll_back(namespace: Namespace, progress: _Progress, failure: BaseException) -> None:
    back = asyncio.ensure_future(_take_back(progress.attempted, namespace))
    try:
        await settled(back)
        error = back.exception()
        lost: Iterable[BaseException] = [error] if error is not None else back.result()
        for item in lost:
            failure.add_note(f"and could not be put back: {_words(item)}")
    finally:
        for descriptor in progress.descriptors:
            close_tap(descriptor)


def _fault(error: OSError, namespace: Namespace) -> NetworkFault:
    fault = NetworkFault(f"the pod's network could not be plumbed: {_words(error)}", subject=os.fspath(namespace.path))
    for note in getattr(error, "__notes__", ()):
        fault.add_note(note)
    return fault


def _words(error: BaseException) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _groups(items: Iterable[T], operation: Callable[[T], Operation]) -> list[tuple[bool, list[T]]]:
    return [
        (local, list(group))
        for local, group in itertools.groupby(items, lambda item: isinstance(operation(item), LocalOperation))
    ]
