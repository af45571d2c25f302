"""`unikernel-shim ps`: which pods there are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shim.cli import terminal

if TYPE_CHECKING:
    from shim.wire import inspection_pb2 as pb

_COLUMNS: Final = ("POD", "ID", "STATE", "GUEST", "MONITOR", "ADDRESS", "AGE")
_STYLES: Final = {"running": "good", "ready": "good", "stopping": "doubtful", "paused": "doubtful", "stopped": "quiet"}
# The largest unit that there are two of, as kubectl does.
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


@click.command("ps", epilog=terminal.EXIT_CODES)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those of which nothing runs any more.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids alone, whole ones, one a line.")
@click.option("--no-trunc", is_flag=True, help="Print whole ids.")
@terminal.json_option("Print them as a JSON array.")
@click.pass_obj
def command(config_path: Path | None, everything: bool, quiet: bool, no_trunc: bool, as_json: bool) -> None:
    """List the pods that the service knows, oldest first.

    With `grouping = "pod"` every pod's daemon is asked; one that does not answer is named on stderr. STATE is the
    unikernel's, and the sandbox's own for a pod that has none.
    """
    from shim import config
    from shim.cli.client import ask_all
    from shim.wire import inspection_pb2 as pb

    answers, dead = ask_all(config.load(config_path), "List", pb.ListRequest(), pb.ListResponse)
    for door in dead:
        terminal.note(f"{_whose(door)} does not answer, so its pods are not listed")
    entries = [entry for answer in answers for entry in answer.sandboxes if everything or not entry.ended]
    entries.sort(key=lambda entry: (entry.created_at.seconds, entry.created_at.nanos))
    if as_json:
        terminal.print_json([as_object(entry) for entry in entries])
    elif quiet:
        for entry in entries:
            click.echo(entry.id)
    else:
        terminal.print_table(_COLUMNS, rows(entries, time.time(), whole=no_trunc))


def rows(entries: Iterable[pb.SandboxEntry], now: float, *, whole: bool) -> Iterable[tuple[str | tuple[str, str], ...]]:
    """A row for each; `now` is in seconds since the epoch, `whole` says that ids are not cut."""
    from shim.sandbox.identifiers import SHOWN

    for entry in entries:
        state = entry.status or entry.state
        yield (
            (f"{entry.pod_namespace}/{entry.pod_name}" if entry.pod_name else "-", "head"),
            entry.id if whole else entry.id[:SHOWN],
            (state, _STYLES.get(state, "")),
            entry.guest or "-",
            entry.monitor or "-",
            " ".join(entry.addresses) or "-",
            age(now - entry.created_at.seconds),
        )


def age(seconds: float) -> str:
    """For people: 90s, 5m, 3h, 12d. Never negative: clocks are set."""
    left = max(int(seconds), 0)
    return next(f"{left // size}{unit}" for size, unit in _UNITS if left >= 2 * size or size == 1)


def as_object(entry: pb.SandboxEntry) -> dict[str, Any]:
    """One, in the words of `inspect` where it has them."""
    from shim.clock import rfc3339

    return {
        "id": entry.id,
        "namespace": entry.namespace,
        "pod": {"namespace": entry.pod_namespace, "name": entry.pod_name},
        "state": entry.state,
        "ended": entry.ended,
        "created_at": rfc3339(entry.created_at.ToNanoseconds()),
        "unikernel": {
            "container": entry.unikernel,
            "status": entry.status,
            "guest": entry.guest,
            "monitor": entry.monitor,
            "addresses": list(entry.addresses),
        }
        if entry.unikernel
        else None,
    }


def _whose(door: Path) -> str:
    """The daemon at a socket: of which pod it is says a file beside it (`rundir`)."""
    try:
        return f"the daemon of {(door.parent / 'pod').read_text().strip()}"
    except OSError:
        return f"the service at {door}"
