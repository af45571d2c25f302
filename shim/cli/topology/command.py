"""The subcommand: where the topology comes from, and how it is shown."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shim.cli import terminal
from shim.cli.pods import pod_argument
from shim.errors import InvalidRequest, NodeFault

if TYPE_CHECKING:
    from shim.network.topology.model import Topology

_WIDTH = 100  # columns where there is no terminal and COLUMNS says nothing


@click.command(
    "topology",
    epilog="Exit codes: 0 nothing is wrong, 1 something is, or the service does not answer, 2 there is no such pod, "
    "130 Ctrl-C.",
)
@pod_argument(required=False)
@click.option("--netns", metavar="NAME|PATH", help="Draw that namespace, without asking the service.")
@click.option("--svg", metavar="FILE", help="Write it as SVG to FILE, `-` for stdout.")
@click.option("--watch", "watched", is_flag=True, help="Go on, and draw it again when it changes, until Ctrl-C.")
@terminal.json_option("Print it as JSON.")
@click.pass_obj
def command(
    config_path: Path | None, pod: str | None, netns: str | None, svg: str | None, watched: bool, as_json: bool
) -> None:
    """Draw POD's network as it is, from the guest to its router: before, now, and what is wrong.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's or a container's id. With --netns what the guest was
    told is unknown.
    """
    if (pod is None) is (netns is None):
        raise InvalidRequest("a pod is to be named, or a namespace", remedy="give POD or --netns, and not both")
    if sum((svg is not None, watched, as_json)) > 1:
        raise InvalidRequest("of --svg, --json and --watch only one makes sense at a time")
    look = _from_service(config_path, pod) if pod is not None else _from_namespace(netns or "")
    if watched:
        from shim.cli.topology import watch

        watch.follow(look, _width)
        return
    found = look()
    if as_json:
        terminal.print_json(found)
    elif svg is not None:
        _write_svg(found, svg)
    else:
        _print(found)
    sys.exit(1 if found.faults else 0)


def _from_service(config_path: Path | None, pod: str) -> Callable[[], Topology]:
    """Asks the service each time."""
    import msgspec

    from shim import config
    from shim.cli.client import ask
    from shim.network.topology.model import Topology
    from shim.wire import inspection_pb2 as pb

    loaded = config.load(config_path)

    def look() -> Topology:
        answer = ask(loaded, "Topology", pb.TopologyRequest(pod=pod), pb.TopologyResponse)
        try:
            return msgspec.json.decode(answer.json, type=Topology)
        except msgspec.ValidationError as error:
            raise NodeFault(
                f"the service draws what this command does not know: {error}",
                remedy="they are of different versions: use the command of the service's",
            ) from error

    return look


def _from_namespace(name: str) -> Callable[[], Topology]:
    """Reads the kernel each time."""

    async def read() -> Topology:
        from shim.network.kernel.namespace import namespace_path, open_namespace
        from shim.network.topology.assembling import Subject, survey

        opened = await open_namespace(namespace_path(name))
        try:
            return await survey(opened, Subject())
        finally:
            opened.close()

    return lambda: asyncio.run(read())


def _width() -> int:
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _print(found: Topology) -> None:
    from shim.cli.topology import text

    lines = text.draw(found, _width(), text.pen_for(sys.stdout.encoding))
    if terminal.on_terminal():
        terminal.console().print(text.styled(lines), end="")
    else:
        click.echo(text.as_text(lines), nl=False)


def _write_svg(found: Topology, where: str) -> None:
    """Raises NodeFault where the file cannot be written."""
    from shim.cli.topology import svg

    drawn = svg.draw(found)
    if where == "-":
        click.echo(drawn.encode(), nl=False)
        return
    try:
        Path(where).write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise NodeFault(f"the picture cannot be written: {error.strerror}", subject=where) from error
