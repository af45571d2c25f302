"""Waiting: for a guest to serve, and for anything to come true."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.integration import guest
from tests.integration.node import Node


def served(node: Node, address: str, *, within: float = 30.0) -> dict[str, str]:
    """The guest's page, as soon as it serves one. Raises AssertionError with the last failure."""
    deadline = time.monotonic() + within
    while True:
        try:
            return guest.page(node.fetch(address, timeout=2))
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def eventually(
    question: Callable[[], object], within: float = 10.0, *, despite: tuple[type[Exception], ...] = ()
) -> None:
    """Wait until the answer is true; an error of `despite` is no answer yet, and raised once the time is over."""
    deadline = time.monotonic() + within
    while True:
        try:
            if question():
                return
        except despite:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.02)
