"""`unikernel-shim check`: what the service finds out about a guest's network, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shim.cli import terminal

if TYPE_CHECKING:
    from shim.wire import inspection_pb2 as pb


@click.command("check")
@click.argument("pod")
@terminal.json_option("Print the findings as JSON.")
@click.pass_obj
def command(config_path: Path | None, pod: str, as_json: bool) -> None:
    """Prove that POD's guest answers, that its gateway does, and that the router knows the guest by its MAC.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's id. Exits with 0 when nothing is wrong, 1 when
    something is, 2 when there is no such pod or nothing in it to be checked.
    """
    from shim import config
    from shim.cli.client import ask
    from shim.wire import inspection_pb2 as pb

    answer = ask(config.load(config_path), "Check", pb.CheckRequest(pod=pod), pb.CheckResponse)
    if as_json:
        terminal.print_json(as_object(answer))
    else:
        click.echo(as_text(answer), nl=False)
    sys.exit(1 if answer.failed else 0)


def as_text(answer: pb.CheckResponse) -> str:
    """A line a finding, what to do below those that failed, and the sum."""
    short = answer.id[:12]
    lines = [f"{answer.pod_namespace}/{answer.pod_name} ({short})" if answer.pod_name else short]
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
    failed = sum(finding.failed for finding in answer.findings)
    if not answer.findings:
        lines.append("  the guest has no network: there is nothing to prove")
    elif failed:
        lines.append(f"{failed} of {len(answer.findings)} failed")
    else:
        lines.append("nothing is wrong")
    return "\n".join(lines) + "\n"


def as_object(answer: pb.CheckResponse) -> dict[str, Any]:
    """One object, the findings as `inspect` has them."""
    from shim.sandbox.description import time

    return {
        "id": answer.id,
        "pod": {"namespace": answer.pod_namespace, "name": answer.pod_name},
        "at": time(answer.at.seconds * 10**9 + answer.at.nanos),
        "took": round(answer.seconds, 6),
        "failed": answer.failed,
        "findings": [
            {field.name: getattr(finding, field.name) for field in finding.DESCRIPTOR.fields}
            for finding in answer.findings
        ],
    }
