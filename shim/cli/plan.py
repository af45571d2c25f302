"""`unikernel-shim plan`: what would be done to a namespace, touching nothing."""

from __future__ import annotations

import asyncio

from shim.network import describe
from shim.network.kernel.namespace import namespace_path
from shim.network.plan import Plan
from shim.network.pod import PodNetwork


def text(netns: str, dataplane: str, interfaces: tuple[str, ...] | None, *, as_json: bool) -> str:
    """The plan for a namespace, by `ip netns` name or path, as text for people or as JSON; for all of its interfaces
    where None are named.

    Raises NetworkFault where its network cannot be handed to a guest, naming why.
    """
    plan = asyncio.run(_plan(netns, dataplane, interfaces))
    return describe.as_json(plan) if as_json else describe.as_text(plan)


async def _plan(netns: str, dataplane: str, interfaces: tuple[str, ...] | None) -> Plan:
    network = await PodNetwork.open(namespace_path(netns))
    try:
        # The substitute MAC depends on the pod; for a plan that is only shown, the namespace's name stands for it.
        return await network.plan(dataplane=dataplane, interfaces=interfaces, seed=netns)
    finally:
        network.close()
