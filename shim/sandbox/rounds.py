"""Checking every guest again and again, for those who look at metrics and not at pods."""

from __future__ import annotations

import asyncio

from shim import log
from shim.errors import ShimError
from shim.sandbox.checks import Checker
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.state import Status

_log = log.get(__name__)


class Rounds:
    """One check of each guest in `every` seconds, spread over them."""

    def __init__(self, sandboxes: Sandboxes, checker: Checker, every: float) -> None:
        self._sandboxes, self._checker, self._every = sandboxes, checker, every
        self._met: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            end = loop.time() + self._every
            due = self.due()
            for position, sandbox in enumerate(due):
                await self._check(sandbox)
                # Slow ones make the rest come closer together: a guest that hangs must not make the round longer.
                await asyncio.sleep(max(0.0, end - loop.time()) / (len(due) - position))
            if not due:
                await asyncio.sleep(self._every)

    def due(self) -> list[Sandbox]:
        """Whose guest runs, and ran already when this was last asked: one that boots is not called unreachable."""
        running = {
            guest.id: sandbox
            for sandbox in self._sandboxes.all()
            if (guest := sandbox.unikernel) is not None and guest.init.status is Status.RUNNING
        }
        former, self._met = self._met, frozenset(running)
        return [sandbox for id, sandbox in running.items() if id in former]

    async def _check(self, sandbox: Sandbox) -> None:
        try:
            await self._checker.check(sandbox)
        except (ShimError, OSError) as error:
            # It ended since, or its pod did; anything else is there in the next round too.
            _log.debug("not checked", sandbox=sandbox.id, error=str(error))
        except Exception as error:
            # What a guest sends is read here: one that we do not understand is no end of the others' checks.
            _log.error("unexpected", sandbox=sandbox.id, exc_info=error)
