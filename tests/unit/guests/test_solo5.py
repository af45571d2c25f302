"""A Solo5 guest is given its container's arguments, and nothing else."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec
from shim.guests.registry import guests

_SOLO5 = guests()["solo5"]


def test_arguments_as_given() -> None:
    spec = GuestSpec(arguments=('{"a": "b c"}', "--x=à", ""), environment={"A": "1"}, hostname="h")
    assert _SOLO5.words(spec) == spec.arguments


def test_no_arguments() -> None:
    assert _SOLO5.words(GuestSpec()) == ()


def test_too_long() -> None:
    assert _SOLO5.words(GuestSpec(arguments=("x" * 8191,)))
    with pytest.raises(InvalidRequest, match="8192 bytes"):
        _SOLO5.words(GuestSpec(arguments=("x" * 8192,)))


def test_every_family_is_known_by_its_name() -> None:
    assert {"solo5", "linux", "rumprun", "mirage", "unikraft"} <= guests().keys()
    assert all(name == guest.name for name, guest in guests().items())
