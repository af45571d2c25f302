"""Times as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(nanoseconds: int) -> str | None:
    """A time since the epoch in RFC 3339, in UTC, to the millisecond; None for 0, which stands for "not yet"."""
    if not nanoseconds:
        return None
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
