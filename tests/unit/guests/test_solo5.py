"""A Solo5 guest is given its container's arguments, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.interfaces import ETH0, TEXT

_SOLO5 = guests()["solo5"]


_CASES = {
    "nothing": GuestSpec(interfaces=(ETH0,), hostname="h"),
    "arguments": GuestSpec(
        arguments=('{"a": "b c"}', "--x=à", ""), environment={"A": "1"}, hostname="h", interfaces=(ETH0,)
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_golden(case: str) -> None:
    golden.check(_SOLO5, case, _CASES[case])


def test_golden_files() -> None:
    golden.check_files(_SOLO5, _CASES)


@given(st.lists(TEXT))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    assert _SOLO5.words(GuestSpec(arguments=tuple(arguments))) == tuple(arguments)


def test_too_long() -> None:
    assert _SOLO5.words(GuestSpec(arguments=("x" * 8191,)))
    with pytest.raises(InvalidRequest, match="8192 bytes"):
        _SOLO5.words(GuestSpec(arguments=("x" * 8192,)))


def test_disks_of_the_manifest_are_not_spoken_of() -> None:
    volumes = (Volume(target="", format="", disk=0, device="storage"),)
    assert _SOLO5.words(GuestSpec(arguments=("a",), volumes=volumes)) == ("a",)


@pytest.mark.parametrize(
    ("volume", "subject"),
    [
        (Volume(target="/data", format="ext4", disk=0), "/data"),
        (Volume(target="", format="", disk=3), "disk 3"),
        (Volume(target="/data", format="9p", device="tag"), "/data"),
    ],
)
def test_others_are_refused(volume: Volume, subject: str) -> None:
    with pytest.raises(InvalidRequest, match="manifest names") as caught:
        _SOLO5.words(GuestSpec(volumes=(volume,)))
    assert caught.value.subject == subject
