"""`unikernel-shim check`: what the service finds out about a guest's network, for people."""

from __future__ import annotations

from typing import Any

import msgspec

from shim.cli.client import ask
from shim.config import Config
from shim.sandbox.description import time
from shim.wire import inspection_pb2 as pb


def run(config: Config, pod: str, *, as_json: bool) -> tuple[str, bool]:
    """The findings as text or as JSON, and whether anything is wrong. Raises what the service answers."""
    answer = ask(config, "Check", pb.CheckRequest(pod=pod), pb.CheckResponse)
    return (as_object(answer) if as_json else as_text(answer)), answer.failed


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


def as_object(answer: pb.CheckResponse) -> str:
    """One JSON object, the findings as `inspect` has them."""
    found: dict[str, Any] = {
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
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
