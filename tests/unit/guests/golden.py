"""Golden files: what a guest family's command line is, word by word, for a table of cases.

The words of a case stand in `golden/FAMILY/CASE.txt`, each on a line of its own. `GOLDEN=write` in the environment
writes the files anew; what changed is then read in the diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from shim.guests.base import Guest, GuestSpec

_DIRECTORY = Path(__file__).parent / "golden"


def check(guest: Guest, case: str, spec: GuestSpec) -> None:
    """The guest's words for `spec` are those of the file."""
    words = guest.words(spec)
    assert not any("\n" in word for word in words), "a golden file has one word on a line"
    text = "".join(f"{word}\n" for word in words)
    path = _DIRECTORY / guest.name / f"{case}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8").splitlines(keepends=True) == text.splitlines(keepends=True)


def check_files(guest: Guest, cases: Iterable[str]) -> None:
    """There is a file for each case, and no other."""
    assert sorted(path.stem for path in (_DIRECTORY / guest.name).iterdir()) == sorted(cases)
