"""`unikernel-shim serve`: the node's service."""

from __future__ import annotations

from pathlib import Path

import click

from shim.cli.terminal import EXIT_CODES


@click.command("serve", epilog=EXIT_CODES)
@click.option(
    "--pod", metavar="NAMESPACE/ID", help="Serve this pod alone, and end with it: what couriers do with grouping = pod."
)
@click.pass_obj
def command(config_path: Path | None, pod: str | None) -> None:
    """Run the node's service until SIGTERM."""
    from shim import config, daemon

    daemon.serve(config.load(config_path), pod)
