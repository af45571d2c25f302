"""What does not strike yet, each with the reason. Take one out to see it fail."""

from __future__ import annotations

from tests.chaos.script import Fault

KNOWN: dict[Fault, str] = {}
