"""Addresses of a version that a guest family cannot be told."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

import pytest

from shim.errors import NetworkFault
from shim.guests.base import GuestSpec, check_versions
from shim.guests.registry import guests
from shim.network.view import GuestInterface

_FOUR = GuestInterface(name="eth0", mac="02:00:00:00:00:01", mtu=1500, address=IPv4Interface("10.1.2.3/24"))
_SIX = GuestInterface(name="net1", mac="02:00:00:00:00:02", mtu=1500, address6=IPv6Interface("fd00::5/64"))
_BOTH = GuestInterface(name="eth0", mac=_FOUR.mac, mtu=1500, address=_FOUR.address, address6=_SIX.address6)
_NONE = GuestInterface(name="net1", mac=_FOUR.mac, mtu=1500)


class _Old:
    """A family without IPv6."""

    name = "old"
    versions = frozenset((4,))
    roots: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    minimum = 1

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        return ()


def test_those_who_speak_both_are_told_all() -> None:
    both = [guest for guest in guests().values() if guest.versions == {4, 6}]
    assert both
    for guest in both:
        assert [check_versions(guest, interface) for interface in (_FOUR, _SIX, _BOTH, _NONE)] == [""] * 4


def test_one_of_two_is_said() -> None:
    assert check_versions(_Old(), _FOUR) == check_versions(_Old(), _NONE) == ""
    assert check_versions(_Old(), _BOTH) == "old guests cannot be told of eth0's fd00::5: they speak IPv4"


def test_none_is_refused() -> None:
    with pytest.raises(NetworkFault, match=r"old guests can be told IPv4 addresses only, and net1 has none; give"):
        check_versions(_Old(), _SIX)
