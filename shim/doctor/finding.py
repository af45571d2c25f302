"""What a look at the node comes to: findings, in order, and whether pods can run."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from typing import Final

import msgspec

from shim.errors import ShimError

#: What to do about what root alone may look at.
AS_ROOT: Final = "run this as root"


class Area(enum.StrEnum):
    """What a finding is about, from the outside in."""

    KERNEL = "kernel"
    DEVICES = "devices"
    ENGINE = "engine"
    MONITORS = "monitors"
    STORAGE = "storage"
    SERVICE = "service"
    CONTAINERD = "containerd"
    CLUSTER = "cluster"


class Outcome(enum.StrEnum):
    """`ABSENT` is what a node may do without, `UNSEEN` what could not be looked at. `BAD` alone keeps pods from
    running."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"
    ABSENT = "absent"
    UNSEEN = "not looked at"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing: `what` was seen of `subject`, `why` that matters ("" where all is well), and the command that `fix`es
    it, or what to do where no command can (several lines, where a file's text is part of it)."""

    area: Area
    subject: str
    outcome: Outcome
    what: str
    why: str = ""
    fix: str = ""


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By area, from the outside in; within one as they came."""
    areas = list(Area)
    return sorted(findings, key=lambda finding: areas.index(finding.area))


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether pods can run, as far as was seen."""
    return not any(finding.outcome is Outcome.BAD for finding in findings)


def unseen(area: Area, subject: str, reason: str, fix: str = "") -> Finding:
    """What could not be looked at."""
    return Finding(area=area, subject=subject, outcome=Outcome.UNSEEN, what=reason, fix=fix)


def words(error: BaseException) -> str:
    """An error in a few words: the kernel's where it is the kernel's."""
    if isinstance(error, ShimError):
        return error.message
    if isinstance(error, OSError) and error.errno:
        return error.strerror or os.strerror(error.errno)
    return str(error) or type(error).__name__
