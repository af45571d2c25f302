"""What is in a container's log file: CRI's format, and plain lines. Pure.

CRI's format is a line `TIME STREAM TAGS CONTENT` for what was written up to a newline, or for a part of it: TIME is RFC
3339 with nanoseconds, STREAM stdout or stderr, TAGS begins with P for a part that goes on and F for a last one
(Kubernetes, pkg/kubelet/kuberuntime/logs/logs.go; containerd, internal/cri/io/logger.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shim.errors import InvalidRequest

_LONGEST: Final = 1 << 20  # bytes of one line that are kept until its end comes
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a container wrote, without the newline. `at` and `stream` are as in the file, "" for a plain one."""

    text: bytes
    at: str = ""
    stream: str = ""


class Reader:
    """Makes lines of what a file has, line by line."""

    def __init__(self, *, cri: bool) -> None:
        """`cri` says that the file is in CRI's format."""
        self._cri = cri
        self._begun: dict[str, Line] = {}

    def read(self, raw: bytes) -> Line | None:
        """The line that `raw` (a file's line without its newline) completes, None where its end is to come.

        What is not in the format, as the rest of a file that was cut, is a line as it stands.
        """
        if not self._cri:
            return Line(text=raw)
        words = raw.split(b" ", 3)
        if len(words) < 3 or words[1] not in (b"stdout", b"stderr"):
            return Line(text=raw)
        at, stream, tags = (word.decode(errors="replace") for word in words[:3])
        text = words[3] if len(words) > 3 else b""
        begun = self._begun.pop(stream, None)
        if begun is not None:
            at, text = begun.at, begun.text + text
        whole = Line(at=at, stream=stream, text=text)
        if tags.partition(":")[0] == "P" and len(whole.text) < _LONGEST:
            self._begun[stream] = whole
            return None
        return whole

    def rest(self) -> list[Line]:
        """The lines whose ends never came, once nothing more does."""
        left, self._begun = list(self._begun.values()), {}
        return left


def since(text: str, now: datetime) -> datetime:
    """The time that 90s, 5m, 1h30m, 2d (ago) or a time in RFC 3339 means. Raises InvalidRequest."""
    found = _DURATION.fullmatch(text)
    if found and any(found.groups()):
        days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
        try:
            return now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            "neither a duration nor a time", subject=text, remedy="give 90s, 5m, 1h30m, 2d or 2026-01-31T12:00:00Z"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def after(limit: datetime | None) -> Callable[[Line], bool]:
    """Whether a line was written at `limit` or later; one whose time cannot be read is taken."""

    def wanted(line: Line) -> bool:
        if limit is None:
            return True
        try:
            # datetime knows microseconds and containerd writes nanoseconds; Python 3.11 cuts what it cannot keep.
            return datetime.fromisoformat(line.at) >= limit
        except (ValueError, TypeError):
            return True

    return wanted
