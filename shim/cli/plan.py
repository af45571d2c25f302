"""`unikernel-shim plan`: what would be done to a namespace, touching nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from shim.cli import terminal
from shim.config import Dataplane

if TYPE_CHECKING:
    from shim.network.plan import Plan


@click.command("plan", epilog=terminal.EXIT_CODES)
@click.option("--netns", required=True, metavar="NAME|PATH", help="The namespace to read.")
@click.option("--dataplane", type=click.Choice(get_args(Dataplane)), help="How a tap is joined to its interface.")
@click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="One to plan for; default: all.")
@terminal.json_option("Print the plan as JSON.")
@click.pass_obj
def command(
    config_path: Path | None, netns: str, dataplane: str | None, interfaces: tuple[str, ...], as_json: bool
) -> None:
    """Read a namespace and print what would be done to it, and what the guest would be told. Touches nothing."""
    from shim import config
    from shim.network import describe

    chosen = dataplane or config.load(config_path).network.dataplane
    plan = asyncio.run(_plan(netns, chosen, interfaces or None))
    click.echo(describe.as_json(plan) if as_json else describe.as_text(plan))


async def _plan(netns: str, dataplane: str, interfaces: tuple[str, ...] | None) -> Plan:
    """Raises NetworkFault where its network cannot be handed to a guest, naming why."""
    from shim.network.kernel.namespace import namespace_path
    from shim.network.pod import PodNetwork

    network = await PodNetwork.open(namespace_path(netns))
    try:
        # The substitute MAC depends on the pod; for a plan that is only shown, the namespace's name stands for it.
        return await network.plan(dataplane=dataplane, interfaces=interfaces, seed=netns)
    finally:
        network.close()
