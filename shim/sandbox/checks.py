"""Checking a sandbox's guest: who may be checked, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from shim import log
from shim.errors import WrongState
from shim.network.checking.check import Report, check_at
from shim.sandbox.occurrences import Checked, Occurrence, about
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import Status

_log = log.get(__name__)


class Checker:
    """Checks guests and counts: `passed` and `failed` are how many checks ended so since the daemon started."""

    def __init__(self, announce: Callable[[Occurrence], None]) -> None:
        """`announce` is the node's."""
        self._announce = announce
        self.passed = 0
        self.failed = 0

    async def check(self, sandbox: Sandbox) -> Report:
        """Check the sandbox's guest; the report stays with its container. No findings for a guest without network.

        Raises WrongState where there is no unikernel in it, or it does not run.
        """
        guest = sandbox.unikernel
        if guest is None:
            raise WrongState("the pod has no unikernel", subject=sandbox.id)
        if guest.init.status is not Status.RUNNING:
            raise WrongState(f"the unikernel is {guest.init.status}, so its guest cannot answer", subject=guest.id)
        plumbing = guest.record.plumbing
        if plumbing is None:
            report = Report(at=time.time_ns(), took=0.0, findings=())
        else:
            report = await check_at(Path(plumbing.netns), plumbing.plan)
        guest.checked = report
        if report.failed:
            self.failed += 1
        else:
            self.passed += 1
        for finding in report.findings:
            if finding.failed:
                _log.warning(
                    "check",
                    container=guest.id,
                    interface=finding.interface,
                    probe=finding.probe.value,
                    outcome=finding.outcome.value,
                    sentence=finding.sentence,
                )
        failures = tuple(finding.sentence for finding in report.findings if finding.failed)
        self._announce(Checked(**about(guest.record), findings=len(report.findings), failures=failures))
        return report
