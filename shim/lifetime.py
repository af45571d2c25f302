"""How long the daemon of one pod lives: as long as the pod, and as somebody may still speak to it.

containerd ends runc's shim by Task.Shutdown. Ours does not wait for that call: not every way to end a pod has it (a
failed Create, a `delete` after the daemon was killed).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from shim.rpc.service import Call, Method, Service

_FIRST = 10.0  # seconds for whoever started the daemon to say why
_LINGER = 0.5  # seconds after the last call: containerd runs a courier for each container of a pod
_ANNOUNCED = 30.0  # seconds for containerd to create a container that its courier announced
# Seconds without a call for a peer that does not close its connection. After Delete containerd calls Shutdown; but one
# that lost a task otherwise may keep the connection and never speak on it again (seen on 1.6.20).
_CONNECTED = 3.0


def patience(*, calls: int, served: bool, quiet: float, announced: float | None, connected: bool) -> float | None:
    """Seconds that the daemon of an empty pod must still wait, 0 for none; None: until a call has ended.

    `calls` are under way, `served` says whether there ever was one, `quiet` are the seconds since the last ended,
    `announced` those since a container was announced that has not come, `connected` says whether a peer is.
    """
    if calls:
        return None
    waits = [(_LINGER if served else _FIRST) - quiet]
    if announced is not None:
        waits.append(_ANNOUNCED - announced)
    if connected and quiet < _CONNECTED:
        waits.append(_LINGER)
    return max(*waits, 0.0)


class Lifetime:
    """Watches a pod's daemon. It counts calls and looks at the pod after each: nothing happens to a pod without one."""

    def __init__(
        self, *, empty: Callable[[], bool], announced: Callable[[], float], connected: Callable[[], bool]
    ) -> None:
        """`empty` says whether the pod is gone, `announced` when a container was announced that has not come (0.0:
        none has), `connected` whether there is a peer."""
        self._empty = empty
        self._announced = announced
        self._connected = connected
        self._calls = 0
        self._served = False
        self._quiet_since = time.monotonic()
        self._ended = asyncio.Event()

    def watch(self, service: Service) -> Service:
        """The same service, its calls counted; those that may wait for ever, and change nothing, are not."""
        return Service(
            service.name,
            {
                name: method if method.limit is None else replace(method, handler=self._counted(method))
                for name, method in service.methods.items()
            },
            service.streams,
        )

    def _counted(self, method: Method) -> Callable[[Any, Call], Any]:
        async def handle(request: Any, call: Call) -> Message:
            self._calls += 1
            self._served = True
            try:
                return await method.handler(request, call)
            finally:
                self._calls -= 1
                self._quiet_since = time.monotonic()
                self._ended.set()

        return handle

    @property
    def left(self) -> float | None:
        """Seconds to wait at least, 0.0 when it is over; None: until a call has ended."""
        if not self._empty():
            return None
        now, announced = time.monotonic(), self._announced()
        return patience(
            calls=self._calls,
            served=self._served,
            quiet=now - self._quiet_since,
            announced=now - announced if announced else None,
            connected=self._connected(),
        )

    async def over(self) -> None:
        """Return once there is nothing to wait for."""
        while (left := self.left) != 0:
            self._ended.clear()
            try:
                async with asyncio.timeout(left):
                    await self._ended.wait()
            except TimeoutError:
                continue
