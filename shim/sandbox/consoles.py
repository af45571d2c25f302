"""Whose terminal is meant, and why one cannot be had."""

from __future__ import annotations

from shim.errors import NotFound, WrongState
from shim.process.terminal import Terminal
from shim.sandbox.container import Container
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

_ENDED = (Status.STOPPED, Status.DELETED)


def container_in(sandbox: Sandbox, wanted: str) -> Container:
    """The container of that name or id, or whose id begins so; "" for the unikernel. Raises NotFound."""
    if not wanted:
        if sandbox.unikernel is None:
            raise NotFound("the pod has no unikernel now", subject=sandbox.id, remedy="name a container with -c")
        return sandbox.unikernel
    # A name means the life that has not ended.
    found = [held for held in sandbox.containers.values() if wanted in (held.id, held.name)]
    found = found or [held for held in sandbox.containers.values() if held.id.startswith(wanted)]
    if not found:
        names = ", ".join(held.name or held.id for held in sandbox.containers.values()) or "none"
        raise NotFound("the pod has no such container", subject=wanted, remedy=f"it has {names}")
    return min(found, key=lambda held: held.init.status in _ENDED)


def terminal_of(container: Container) -> Terminal:
    """Its terminal. Raises WrongState where it has none, or has it no more."""
    if container.init.status in _ENDED:
        raise WrongState("the container has ended, and its terminal with it", subject=container.id)
    if not container.record.streams.terminal:
        raise WrongState(
            "the container has no terminal",
            subject=container.id,
            remedy="set tty: true and stdin: true in the pod (ctr run -t); unikernel-shim logs -f shows what it says",
        )
    if container.init.terminal is None:
        raise WrongState(
            "the terminal was lost when the service was restarted",
            subject=container.id,
            remedy="restart the container to have it back",
        )
    return container.init.terminal
