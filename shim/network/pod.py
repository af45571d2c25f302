"""The pod's network as the sandbox sees it: open, plan, apply, undo, close."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from shim.errors import NetworkFault
from shim.network import apply as applying
from shim.network import layout as layouts
from shim.network.addressing.interfaces import AUTO
from shim.network.dataplanes.wiring import TapOptions
from shim.network.kernel.namespace import Namespace, NamespaceGone, open_namespace
from shim.network.layout import Layout
from shim.network.operations import CreateTap, OpenMacvtap
from shim.network.plan import Plan, make_plan


class PodNetwork:
    """One pod's network namespace, held open. Made by `PodNetwork.open`; an async context manager."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    @classmethod
    async def open(cls, path: Path) -> PodNetwork:
        """Raises NamespaceGone (a NetworkFault) if there is none, NetworkFault if it is the host's."""
        return cls(await open_namespace(path))

    @property
    def path(self) -> Path:
        """Where the namespace was found."""
        return self._namespace.path

    async def layout(self) -> Layout:
        """What the CNI plugin left, once nothing of ours is on its way out any more. Raises NetworkFault."""
        await self._namespace.settled()
        return await layouts.read(self._namespace)

    async def plan(
        self,
        *,
        seed: str,
        dataplane: str = AUTO,
        tap: TapOptions | None = None,
        interfaces: tuple[str, ...] | None = None,
    ) -> Plan:
        """Read the layout and plan; touches nothing. See `plan.make_plan`."""
        layout = await self.layout()
        return make_plan(layout, seed=seed, dataplane=dataplane, tap=tap, interfaces=interfaces)

    async def apply(self, plan: Plan) -> list[int]:
        """Plumb; the taps' descriptors are the caller's. See `apply.apply`."""
        return await applying.apply(plan, self._namespace)

    async def open_tap(self, tap: CreateTap | OpenMacvtap) -> int:
        """A descriptor of a tap that was plumbed; the caller's. Raises NetworkFault."""
        try:
            return await self._namespace.run(tap.open)
        except OSError as error:
            raise NetworkFault(
                f"the guest's tap cannot be opened: {os.strerror(error.errno or 0)}", subject=tap.link
            ) from error

    async def undo(self, plan: Plan) -> None:
        """Put everything back; may be repeated. Our devices go in the background. See `apply.undo`."""
        await applying.undo(plan, self._namespace)

    async def settled(self) -> None:
        """Wait until our devices are gone, too."""
        await self._namespace.settled()

    def close(self) -> None:
        """Let go of the namespace, which otherwise lives on after the CNI plugin removed it."""
        self._namespace.close()

    async def __aenter__(self) -> PodNetwork:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def open_tap_at(path: Path, plan: Plan, name: str) -> int:
    """A descriptor of the tap that a plan has made, by its name; the caller's to close. Raises NetworkFault."""
    (tap,) = (tap for tap in plan.taps if tap.link == name)
    async with await PodNetwork.open(path) as network:
        return await network.open_tap(tap)


async def undo_at(path: Path, plan: Plan) -> None:
    """Undo a plan from the journal. A namespace that is gone took the plumbing with it. Raises NetworkFault."""
    try:
        network = await PodNetwork.open(path)
    except NamespaceGone:
        return
    async with network:
        await network.undo(plan)
