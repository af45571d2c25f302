"""Names that callers choose and that become paths, so they are checked before anything else."""

from __future__ import annotations

import re
from typing import Final

from shim.errors import InvalidRequest

# containerd's identifiers package: alphanumeric, with single separators inside, 76 bytes at most.
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*")
_LIMIT = 76
#: Characters of an id that people are shown.
SHOWN: Final = 12


def check(value: str, what: str) -> str:
    """`value` itself. Raises InvalidRequest when it cannot be a `what` ("container id", "namespace")."""
    if len(value) > _LIMIT or not _IDENTIFIER.fullmatch(value):
        raise InvalidRequest(
            f"not a {what}",
            subject=repr(value),
            remedy=f"use letters and digits with single '.', '_' or '-' between them, {_LIMIT} characters at most",
        )
    return value


def title(sandbox: str, namespace: str, name: str) -> str:
    """What people call a sandbox of that id: its pod's name, where it has one, and its id's beginning."""
    short = sandbox[:SHOWN]
    return f"{namespace}/{name} ({short})" if name else short
