"""A Solo5 guest is given its container's arguments, and nothing else."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
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
