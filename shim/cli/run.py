"""`unikernel-shim run`: its options. What it does is in foreground.py, imported on use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from shim.cli import choices
from shim.config import Dataplane


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Exit codes: the monitor's own; 1 it could not be started, 2 the question makes no sense.",
)
@click.option(
    "--netns", metavar="NAME|PATH", help="The namespace whose interfaces the guest takes over; none: no network."
)
@click.option("--dataplane", type=click.Choice(get_args(Dataplane)), help="How a tap is joined to its interface.")
@click.option("--nics", metavar="LIST", help="Which interfaces: eth0,net1, or DEVICE=INTERFACE for a manifest's.")
@click.option(
    "--monitor", metavar="NAME", shell_complete=choices.monitors, help="The monitor; default: what the kernel asks for."
)
@click.option(
    "--guest", metavar="NAME", shell_complete=choices.guests, help="The guest's family; default: what the kernel is."
)
@click.option("--memory", metavar="SIZE", help="The guest's memory: 64, 64Mi, 1Gi.")
@click.option("--initrd", type=click.Path(path_type=Path), help="An initrd for a Linux guest.")
@click.option("--cmdline", default="", help="Words to add to a Linux guest's command line.")
@click.argument("kernel", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(
    config_path: Path | None,
    netns: str | None,
    dataplane: str | None,
    nics: str | None,
    monitor: str | None,
    guest: str | None,
    memory: str | None,
    initrd: Path | None,
    cmdline: str,
    kernel: Path,
    arguments: tuple[str, ...],
) -> None:
    """Run KERNEL in the foreground with no containerd; Ctrl-C asks it to power down, a second one kills it."""
    from shim import config
    from shim.cli.foreground import foreground

    wishes = {
        "monitor": monitor,
        "guest": guest,
        "memory": memory,
        "cmdline": cmdline,
        "dataplane": dataplane,
        "nics": nics,
    }
    sys.exit(
        foreground(
            config.load(config_path),
            kernel,
            arguments,
            netns=netns,
            initrd=initrd,
            wishes={key: value for key, value in wishes.items() if value},
        )
    )
