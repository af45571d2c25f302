"""`unikernel-shim plan`: what would be done to a namespace, touching nothing."""

from __future__ import annotations

import asyncio

import msgspec

from shim.network.describe import describe
from shim.network.namespace import resolve
from shim.network.plan import Plan
from shim.network.pod import PodNetwork


def text(netns: str, dataplane: str, *, as_json: bool) -> str:
    """The plan for a namespace, by `ip netns` name or path, as text for people or as JSON.

    Raises NetworkFault where its network cannot be handed to a guest, naming why.
    """
    plan = asyncio.run(_plan(netns, dataplane))
    if as_json:
        return msgspec.json.format(msgspec.json.encode(plan, enc_hook=str)).decode()
    return describe(plan)


async def _plan(netns: str, dataplane: str) -> Plan:
    network = await PodNetwork.open(resolve(netns))
    try:
        # The substitute MAC depends on the pod; for a plan that is only shown, the namespace's name stands for it.
        return await network.plan(dataplane=dataplane, seed=netns)
    finally:
        network.close()
