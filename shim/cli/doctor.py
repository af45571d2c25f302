"""`unikernel-shim doctor`: whether the node is ready, for people and programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from shim.cli import terminal
from shim.cli.endings import tidied_up

if TYPE_CHECKING:
    from shim.doctor.finding import Finding

_OUTCOME, _AREA = 13, 10  # columns: as wide as the longest word
# How outcomes look on a terminal, by terminal.STYLES.
_LOOKS: Final = {"good": "good", "doubtful": "doubtful", "bad": "bad", "absent": "quiet", "not looked at": "quiet"}


@click.command(
    "doctor", epilog="Exit codes: 0 pods can run, 1 something keeps them from it, 2 an option makes no sense."
)
@click.option("--containerd", "address", metavar="SOCKET", help="containerd's socket; default: containerd.address.")
@click.option(
    "--containerd-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="containerd's configuration; default: the one it was started with.",
)
@terminal.json_option("Print the findings as JSON.")
@click.pass_obj
def command(config_path: Path | None, address: str | None, containerd_config: Path | None, as_json: bool) -> None:
    """Look at the node from the outside in: can it run pods, and what is to be done where it cannot.

    Exits with 0 when pods can run, 1 when something keeps them from it, 2 when an option makes no sense. What it makes
    to try things out is gone again when it ends. As another user than root it says what it could not look at.
    """
    import asyncio

    from shim import log
    from shim.doctor.examination import Scope, examine
    from shim.doctor.finding import can_run
    from shim.errors import InvalidRequest

    if config_path is not None and not config_path.exists():
        raise InvalidRequest("there is no such configuration file", subject=str(config_path))
    log.configure("critical")  # what is found is told as findings
    where = Path(address.removeprefix("unix://")).absolute() if address else None
    main = containerd_config.absolute() if containerd_config else None
    with tidied_up():
        findings = asyncio.run(examine(Scope(config=config_path, containerd=where, containerd_config=main)))
    if as_json:
        terminal.print_json({"can_run": can_run(findings), "findings": findings})
    else:
        _print(findings)
    sys.exit(0 if can_run(findings) else 1)


def _print(findings: Sequence[Finding]) -> None:
    """A line a finding, below those that are not good why they matter and what to do, and the sum."""
    for finding in findings:
        rest, block = _below(finding)
        if terminal.on_terminal():
            _print_row(finding, rest)
        else:
            click.echo(f"{finding.outcome.value:<{_OUTCOME}}  {finding.area.value:<{_AREA}}  {_headline(finding)}")
            for line in rest:
                click.echo(f"  {line}")
        for line in block:
            # From the line's beginning on, and never wrapped, so that it can be copied as it is.
            click.echo(terminal.plain(line))
    click.echo(_sum(findings))


def _print_row(finding: Finding, rest: Sequence[str]) -> None:
    """On a terminal: each part wraps within its column."""
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=_OUTCOME)
    row.add_column(width=_AREA)
    row.add_column(overflow="fold")
    look = _LOOKS[finding.outcome.value]
    row.add_row(Text(finding.outcome.value, style=look), finding.area.value, Text(_headline(finding)))
    for line in rest:
        row.add_row("", "", Text(line, style="quiet"))
    terminal.console().print(row)


def _headline(finding: Finding) -> str:
    return terminal.plain(f"{finding.subject}: {finding.what}")


def _below(finding: Finding) -> tuple[list[str], list[str]]:
    """The lines below a finding's own, and those of a fix that has several."""
    from shim.doctor.finding import Outcome

    if finding.outcome is Outcome.GOOD:
        return [], []
    why = [f"why:  {terminal.plain(finding.why)}"] if finding.why else []
    lines = finding.fix.splitlines()
    if len(lines) > 1:
        return [*why, "fix:"], lines
    return [*why, *(f"fix:  {terminal.plain(line)}" for line in lines)], []


def _sum(findings: Sequence[Finding]) -> str:
    from shim.doctor.finding import Outcome, can_run

    counts = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    told = [f"{counts[each]} {each.value}" for each in (Outcome.BAD, Outcome.DOUBTFUL, Outcome.UNSEEN) if counts[each]]
    verdict = "pods can run" if can_run(findings) else "pods cannot run"
    return f"{verdict}: {', '.join(told)}" if told else f"{verdict}: nothing is wrong"
