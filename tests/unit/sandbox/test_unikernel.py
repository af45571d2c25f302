"""The pure decisions about a unikernel: its memory."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.sandbox.unikernel import guest_memory

_MIB = 1 << 20


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
