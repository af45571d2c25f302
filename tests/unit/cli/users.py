"""Who runs a command."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def another_user() -> Iterator[None]:
    """Neither root nor who owns what the tests make."""
    # Now: another user may not be let into a checkout of root's.
    for name in ("ps", "inspect", "events", "run", "foreground", "client"):
        importlib.import_module(f"shim.cli.{name}")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
