"""`installer install`, `remove` and `status`, run in a pod with the node's root at /host."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from contrib.kubernetes.installer import label, sequence
from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.record import Record
from contrib.kubernetes.installer.sequence import Installation, Site
from shim.errors import ShimError

_SITE = Site()


@click.group(context_settings={"auto_envvar_prefix": "INSTALLER", "show_default": True})
@click.option("--root", type=click.Path(path_type=Path), default=Path("/host"), help="The node's root directory.")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    default=Path(sys.prefix).parent,
    help="The installation to put on the node.",
)
@click.option("--node", default="", help="The node's name, to label it; none: no label.")
@click.option("--config", default=_SITE.config, help="containerd's main file.")
@click.option("--containerd", default=_SITE.containerd, help="containerd's program.")
@click.option("--unit", default=_SITE.unit, help="The unit that runs containerd.")
@click.option("--bindir", default=_SITE.bindir, help="A directory of containerd's PATH.")
@click.pass_context
def main(context: click.Context, /, root: Path, source: Path, node: str, **site: Any) -> None:
    """Put unikernel-shim on a node, or take it off. Every option can be given as INSTALLER_OPTION."""
    context.obj = (Node(root), Site(**site), Installation(source, source.name), node)


@main.command()
@click.option("--stay", is_flag=True, help="Wait for a signal afterwards, as a DaemonSet's pod does.")
@click.pass_obj
def install(place: tuple[Node, Site, Installation, str], stay: bool) -> None:
    """Install this image's release, or bring the node to it."""
    node, site, installation, name = place
    _said(lambda: sequence.install(node, site, installation, Record(node)))
    if name:
        _said(lambda: label.put(name, "true"))
    _stay(stay)


@main.command()
@click.option("--stay", is_flag=True, help="Wait for a signal afterwards, as a DaemonSet's pod does.")
@click.option("--force", is_flag=True, help="Also where pods of the runtime are there.")
@click.pass_obj
def remove(place: tuple[Node, Site, Installation, str], stay: bool, force: bool) -> None:
    """Take the runtime off the node: every file is as it was."""
    node, site, _, name = place
    if name:
        # First, so that no pod comes any more.
        _said(lambda: label.put(name, None))
    _said(lambda: sequence.remove(node, site, Record(node), force=force))
    _stay(stay)


@main.command()
@click.option("--absent", is_flag=True, help="Ask whether it is off the node.")
@click.pass_obj
def status(place: tuple[Node, Site, Installation, str], absent: bool) -> None:
    """Exit with 0 if this image's release is whole on the node."""
    node, _, installation, _ = place
    if absent:
        _said(lambda: sequence.absent(Record(node)))
        return
    _said(lambda: sequence.status(node, installation, Record(node)))


def _said(do: Callable[[], list[str] | None]) -> None:
    """Print what `do` says; a ShimError is one sentence and status 1."""
    try:
        for sentence in do() or []:
            click.echo(sentence)
    except ShimError as error:
        click.echo(f"installer: {error}", err=True)
        sys.exit(1)


def _stay(stay: bool) -> None:
    if stay:
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        os._exit(0)


if __name__ == "__main__":
    # Blocked, so that a pod that is deleted meanwhile is left with a node that is whole.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(prog_name="installer")
