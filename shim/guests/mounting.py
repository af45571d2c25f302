"""Where a volume is to be mounted, as a word of a command line can say it."""

from __future__ import annotations

from shim.errors import InvalidRequest
from shim.guests.base import Volume

_NAMES = {" ": "spaces", ":": "colons", ",": "commas", "\\": "backslashes", "\0": "NUL"}


def mount_point(volume: Volume, family: str, ends: str) -> str:
    """The volume's target; `family` is the guest's name for people, `ends` the characters (of `_NAMES`) that end or
    change a path in its grammar.

    Raises InvalidRequest for a target that is no absolute path, or has one of those.
    """
    if not volume.target.startswith("/") or not set(ends).isdisjoint(volume.target):
        raise InvalidRequest(
            f"{family} guests cannot be told to mount at {volume.target!r}",
            subject=volume.target,
            remedy=f"use an absolute path without {' or '.join(_NAMES[character] for character in ends)}",
        )
    return volume.target
