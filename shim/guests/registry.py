"""Every guest family, by the name that annotations use."""

from __future__ import annotations

from shim.guests.base import Guest
from shim.guests.linux import Linux
from shim.guests.mirage import Mirage
from shim.guests.rumprun import Rumprun
from shim.guests.solo5 import Solo5
from shim.guests.unikraft import Unikraft


def guests() -> dict[str, Guest]:
    """All families."""
    families: tuple[Guest, ...] = (Solo5(), Linux(), Rumprun(), Mirage(), Unikraft())
    return {family.name: family for family in families}
