"""What monitors are told, whole, as files: a change of one is a change of what is started."""

from __future__ import annotations

import difflib
from pathlib import Path

_HERE = Path(__file__).parent


def check(name: str, found: str) -> None:
    """Fail with the difference where `found` is not what the file `name` holds."""
    expected = (_HERE / name).read_text()
    assert found == expected, "".join(
        difflib.unified_diff(expected.splitlines(keepends=True), found.splitlines(keepends=True), name, "found")
    )
