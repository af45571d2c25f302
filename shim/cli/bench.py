"""`unikernel-shim bench`: how fast this node is at what the service does for each pod."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shim.cli import terminal
from shim.cli.endings import tidied_up
from shim.config import VARIABLE

if TYPE_CHECKING:
    from shim.bench.figures import Row, Table
    from shim.config import Config

_COURIER: Final = "containerd-shim-unikernel-v2"
_COLUMNS: Final = ("WHAT", "N", "MEDIAN", "P99", "RATIO")


@click.command("bench", epilog=terminal.EXIT_CODES)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=50, show_default=True, help="How often each thing is measured."
)
@terminal.json_option("Print the figures as JSON.")
@click.pass_obj
def command(config_path: Path | None, rounds: int, as_json: bool) -> None:
    """Measure what the service does for each pod, on this node, and leave nothing behind.

    A call of the service; the shim binary beside its bare interpreter; plumbing a made network namespace and undoing
    it, beside ip(8) and tc(8) doing what they can of the same. Each takes turns with its peer, and RATIO is its median
    divided by the peer's: ratios can be compared between nodes, times hardly. What cannot be measured here is named on
    stderr. docs/performance.md has figures, and `make bench` in a checkout measures more.
    """
    from shim import config as configuration

    config = configuration.load(config_path)
    # To be told to end is no reason to leave a namespace behind.
    with tidied_up():
        tables = list(_measured(config, configuration.named(config_path), rounds))
    if as_json:
        terminal.print_json({"load": os.getloadavg()[0], "figures": [as_object(each) for each in tables]})
        return
    for number, each in enumerate(tables):
        if number:
            click.echo("")
        terminal.print_words((each.heading, "head"))
        terminal.print_table(_COLUMNS, _rows(each))


def _measured(config: Config, file: Path, rounds: int) -> Iterator[Table]:
    """Each table that can be made here. `file` is where the configuration comes from."""
    from shim.bench import measuring
    from shim.cli import client
    from shim.errors import ShimError
    from shim.wire import inspection_pb2 as pb

    try:
        with client.connected(config.grpc_socket, "List", pb.ListRequest()) as call:
            yield measuring.round_trips(call, 10 * rounds).table()
    except ShimError as error:
        terminal.note(f"a call is not measured: {error}")
    try:
        environment = {**os.environ, VARIABLE: os.fspath(file.absolute())}
        yield measuring.courier(_courier(config), rounds, environment).table()
    except (OSError, subprocess.CalledProcessError, ShimError) as error:
        terminal.note(f"the shim binary is not measured: {_words(error)}")
    try:
        with measuring.made_pod(f"uksbench{os.getpid()}") as namespace:
            yield asyncio.run(measuring.plumbing(namespace, config.network.dataplane, rounds)).table()
    except (OSError, subprocess.CalledProcessError, ShimError) as error:
        terminal.note(f"plumbing is not measured: {_words(error)} (it needs root, and ip(8) and tc(8))")


def _courier(config: Config) -> Path:
    """The shim binary. Raises NodeFault where there is none, or where it would start a daemon that nobody ends."""
    from shim.errors import NodeFault
    from shim.rpc import unix

    binary = shutil.which(_COURIER, path=f"{Path(sys.argv[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if binary is None:
        raise NodeFault(f"{_COURIER} is not on PATH")
    if config.grouping == "pod":
        raise NodeFault('with grouping = "pod" each run starts a daemon')
    if not unix.answers(config.ttrpc_socket):
        raise NodeFault("it would start the service, which does not run")
    return Path(binary)


def _words(error: Exception) -> str:
    said: bytes | None = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return said.decode(errors="replace").strip() if said else str(error)


def _rows(table: Table) -> Iterator[tuple[str, ...]]:
    for row in table.rows:
        ratio = _ratio(table, row)
        said = f"{ratio:.2f}" if ratio is not None else "-"
        yield row.name, str(row.count), f"{row.median:.3f} {table.unit}", f"{row.p99:.3f} {table.unit}", said


def _ratio(table: Table, row: Row) -> float | None:
    """The row's ratio; the peer's own is 1."""
    return 1.0 if row.name == table.peer else row.ratio


def as_object(table: Table) -> dict[str, Any]:
    """One table; `ratio` is null for one that has no peer."""
    return {
        "title": table.title,
        "unit": table.unit,
        "peer": table.peer or None,
        "rows": [
            {"name": row.name, "n": row.count, "median": row.median, "p99": row.p99, "ratio": _ratio(table, row)}
            for row in table.rows
        ],
    }
