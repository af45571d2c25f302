"""What does not happen yet, each with the reason. Take a line out to see it fail."""

from __future__ import annotations

from tests.chaos.script import GROUPS, Fault, Verb

#: Faults that do not strike.
FAULTS: dict[Fault, str] = {}

#: What is not asked for in an act in which one of these faults strikes.
APART: dict[Verb, tuple[frozenset[Fault], str]] = {
    Verb.PAUSE: (
        frozenset(fault for fault in Fault if GROUPS[fault] == "daemon"),
        "a container that is paused while the daemon is replaced is adopted as running, and can then not be stopped",
    ),
}


def apart() -> dict[Verb, frozenset[Fault]]:
    """APART without the reasons."""
    return {verb: faults for verb, (faults, _) in APART.items()}
