"""Every guest family, by the name that annotations use."""

from __future__ import annotations

from shim.guests.base import Guest
from shim.guests.hermit import Hermit
from shim.guests.linux import Linux
from shim.guests.mirage import Mirage
from shim.guests.nanos import Nanos
from shim.guests.osv import Osv
from shim.guests.rumprun import Rumprun
from shim.guests.solo5 import Solo5
from shim.guests.unikraft import Unikraft


def guests() -> dict[str, Guest]:
    """All families."""
    families: tuple[Guest, ...] = (
        *(Solo5(), Rumprun(), Mirage(), Unikraft()),
        *(Linux(), Hermit(), Osv(), Nanos()),
    )
    return {family.name: family for family in families}
