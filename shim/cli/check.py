"""`unikernel-shim check`: what the service finds out about a guest's network, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shim.cli import terminal
from shim.cli.inspect import outcome_style
from shim.cli.pods import pod_argument

if TYPE_CHECKING:
    from shim.wire import inspection_pb2 as pb


@click.command("check", epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 there is nothing to be checked.")
@pod_argument()
@terminal.json_option("Print the findings as JSON.")
@click.pass_obj
def command(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Prove that POD's guest answers, that its gateway does, and that the router knows the guest by its MAC.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's or a container's id.
    """
    from shim import config
    from shim.cli.client import ask
    from shim.wire import inspection_pb2 as pb

    answer = ask(config.load(config_path), "Check", pb.CheckRequest(pod=pod), pb.CheckResponse)
    if as_json:
        terminal.print_json(as_object(answer))
    elif terminal.on_terminal():
        _show(answer)
    else:
        click.echo(as_text(answer), nl=False)
    sys.exit(1 if answer.failed else 0)


def _show(answer: pb.CheckResponse) -> None:
    """For a person: as `as_text`, as a table."""
    from shim.sandbox.identifiers import title

    terminal.print_words((title(answer.id, answer.pod_namespace, answer.pod_name), "head"))
    rows = [
        (
            finding.interface,
            finding.family or "-",
            finding.probe,
            (finding.outcome, outcome_style(finding.outcome, failed=finding.failed)),
            finding.sentence,
        )
        for finding in answer.findings
    ]
    if rows:
        terminal.print_table(("NIC", "FAMILY", "PROBE", "OUTCOME", "SEEN"), rows)
    for finding in answer.findings:
        if finding.failed and finding.remedy:
            terminal.print_words((f"to do for {finding.interface} {finding.probe}: ", "doubtful"), finding.remedy)
    terminal.print_words((_sum(answer), "bad" if answer.failed else "good"))


def _sum(answer: pb.CheckResponse) -> str:
    failed = sum(finding.failed for finding in answer.findings)
    if not answer.findings:
        return "the guest has no network: there is nothing to prove"
    return f"{failed} of {len(answer.findings)} failed" if failed else "nothing is wrong"


def as_text(answer: pb.CheckResponse) -> str:
    """A line a finding, what to do below those that failed, and the sum."""
    from shim.sandbox.identifiers import title

    lines = [title(answer.id, answer.pod_namespace, answer.pod_name)]
    for finding in answer.findings:
        words = (
            f"{finding.interface:<6}",
            f"{finding.family or '-':<4}",
            f"{finding.probe:<7}",
            f"{finding.outcome:<10}",
        )
        lines.append(f"  {'  '.join(words)}  {finding.sentence}")
        if finding.failed and finding.remedy:
            lines.append(f"  {'':<6}  to do: {finding.remedy}")
    lines.append(_sum(answer) if answer.findings else f"  {_sum(answer)}")
    return "\n".join(lines) + "\n"


def as_object(answer: pb.CheckResponse) -> dict[str, Any]:
    """One object, the findings as `inspect` has them."""
    from shim.clock import rfc3339

    return {
        "id": answer.id,
        "pod": {"namespace": answer.pod_namespace, "name": answer.pod_name},
        "at": rfc3339(answer.at.seconds * 10**9 + answer.at.nanos),
        "took": round(answer.seconds, 6),
        "failed": answer.failed,
        "findings": [
            {field.name: getattr(finding, field.name) for field in finding.DESCRIPTOR.fields}
            for finding in answer.findings
        ],
    }
