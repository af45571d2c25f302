"""The pure decisions about a unikernel: its memory, its NICs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shim.errors import ImageFault, InvalidRequest
from shim.network.view import GuestInterface
from shim.sandbox.unikernel import guest_memory, name_nics

_MIB = 1 << 20
_ETH0 = GuestInterface(name="eth0", mac="02:00:00:00:00:01", mtu=1500)


@pytest.mark.parametrize(
    ("wish", "limit", "memory"),
    [(None, 0, 128), (64, 0, 64), (None, 256, 192), (64, 256, 64), (192, 256, 192)],
)
def test_memory(wish: int | None, limit: int, memory: int) -> None:
    assert guest_memory(wish, limit * _MIB, 128, 64) == memory


def test_memory_that_cannot_fit() -> None:
    with pytest.raises(InvalidRequest, match="exceed the memory limit of 256 MiB"):
        guest_memory(193, 256 * _MIB, 128, 64)
    with pytest.raises(InvalidRequest, match="leaves no room"):
        guest_memory(None, 64 * _MIB, 128, 64)


def test_a_manifests_nics() -> None:
    assert name_nics(("net0",), (_ETH0,), Path("/k")) == ("net0",)
    with pytest.raises(ImageFault, match=r"\[net0, net1\], the pod offers \[eth0\]"):
        name_nics(("net0", "net1"), (_ETH0,), Path("/k"))
    with pytest.raises(ImageFault, match=r"\[net0\], the pod offers \[none\]"):
        name_nics(("net0",), (), Path("/k"))
