"""Every family is known by its name, and says of itself what it can have."""

from __future__ import annotations

import pytest

from shim.guests.base import Guest
from shim.guests.registry import guests


def test_every_family_is_known_by_its_name() -> None:
    assert all(name == guest.name for name, guest in guests().items())


@pytest.mark.parametrize("guest", guests().values(), ids=guests())
def test_what_a_family_says_of_itself(guest: Guest) -> None:
    assert guest.versions and guest.versions <= {4, 6}
    assert guest.minimum >= 1
    assert all(
        formats == tuple(dict.fromkeys(formats)) and "" not in formats for formats in (guest.roots, guest.mounts)
    )
