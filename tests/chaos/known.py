"""What does not happen yet, each with the reason. Take a line out to see it fail."""

from __future__ import annotations

from tests.chaos.script import Fault, Verb

#: Faults that do not strike.
FAULTS: dict[Fault, str] = {}

#: What is not asked for in an act in which one of these faults strikes.
APART: dict[Verb, tuple[frozenset[Fault], str]] = {}

#: After what the daemon may keep something, in its list or its run directory, until it is started anew; the next one
#: must keep nothing.
UNTIL_RESTART: dict[Fault, str] = {
    Fault.ENGINE_FAILS: "a teardown that failed (the engine's delete) is tried again by nobody but the next daemon",
    Fault.ENGINE_LIES: "the same",
    Fault.ENGINE_HANGS: "the same: the engine's delete was given up",
    Fault.DISK_FULL: "what cannot be written or removed stays (Journal.forget says so), and the next daemon removes it",
    Fault.DISK_READ_ONLY: "the same",
}

#: After what the daemon may keep containers that have ended and that containerd no longer has, even once it is started
#: anew: until the machine is.
GHOSTS: dict[Fault, str] = {}


def apart() -> dict[Verb, frozenset[Fault]]:
    """APART without the reasons."""
    return {verb: faults for verb, (faults, _) in APART.items()}
