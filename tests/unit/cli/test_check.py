"""What `unikernel-shim check` prints."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from shim.cli.check import as_object, as_text
from shim.wire import inspection_pb2 as pb

PROVEN = pb.Finding(interface="eth0", family="ipv4", probe="guest", outcome="proven", sentence="it answers")
UNKNOWN = pb.Finding(
    interface="eth0", family="ipv4", probe="router", outcome="unanswered", sentence="nobody", remedy="x"
)
WRONG = pb.Finding(
    interface="net1",
    family="ipv6",
    probe="router",
    outcome="wrong",
    sentence="elsewhere",
    remedy="mend it",
    failed=True,
)


def answer(*findings: pb.Finding) -> pb.CheckResponse:
    return pb.CheckResponse(
        id="0123456789abcdef", pod_namespace="default", pod_name="web", findings=findings,
        failed=any(finding.failed for finding in findings), at=Timestamp(seconds=1_700_000_000), seconds=0.0123456789,
    )  # fmt: skip


def test_a_line_a_finding_and_the_sum() -> None:
    assert as_text(answer(PROVEN, WRONG)).splitlines() == [
        "default/web (0123456789ab)",
        "  eth0    ipv4  guest    proven      it answers",
        "  net1    ipv6  router   wrong       elsewhere",
        "          to do: mend it",
        "1 of 2 failed",
    ]


@pytest.mark.parametrize(
    ("findings", "last"),
    [((PROVEN, UNKNOWN), "nothing is wrong"), ((), "  the guest has no network: there is nothing to prove")],
)
def test_what_is_not_wrong(findings: tuple[pb.Finding, ...], last: str) -> None:
    said = as_text(answer(*findings)).splitlines()
    assert said[-1] == last and not any("to do" in line for line in said)


def test_as_json() -> None:
    found = as_object(answer(WRONG))
    assert found["pod"] == {"namespace": "default", "name": "web"} and found["failed"] is True
    assert found["at"] == "2023-11-14T22:13:20.000Z" and found["took"] == 0.012346
    assert found["findings"] == [
        {
            "interface": "net1", "family": "ipv6", "probe": "router", "outcome": "wrong", "sentence": "elsewhere",
            "remedy": "mend it", "failed": True,
        }
    ]  # fmt: skip
