"""Memory and processors out of a container's limits."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.sandbox.resources import guest_cpus, guest_memory

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("wish", "limit", "memory"),
    [(None, 0, 128), (64, 0, 64), (None, 256, 192), (64, 256, 64), (192, 256, 192)],
)
def test_memory(wish: int | None, limit: int, memory: int) -> None:
    assert guest_memory(wish, limit * _MIB, 128, 64) == memory


def test_a_default_that_is_too_little_is_not_the_pods_fault() -> None:
    assert guest_memory(None, 0, 16, 64, 32) == 32


def test_memory_that_cannot_fit() -> None:
    with pytest.raises(InvalidRequest, match="exceed the memory limit of 256 MiB"):
        guest_memory(193, 256 * _MIB, 128, 64)


def test_less_than_the_guest_starts_with() -> None:
    """Minimum, limit and overhead are named."""
    with pytest.raises(InvalidRequest, match=r"limit of 95 MiB .*\(32 MiB at least\).*\(64 MiB\).*raise.* 96Mi"):
        guest_memory(None, 95 * _MIB, 128, 64, 32)
    assert guest_memory(None, 96 * _MIB, 128, 64, 32) == 32
    with pytest.raises(InvalidRequest, match="31 MiB are too little for such a guest, which needs 32 MiB"):
        guest_memory(31, 0, 128, 64, 32)


@pytest.mark.parametrize(
    ("wish", "most", "cpus"), [(0, 8, 1), (0.1, 8, 1), (1.0, 8, 1), (1.5, 8, 2), (4.0, 8, 4), (12.0, 8, 8), (4.0, 1, 1)]
)
def test_processors(wish: float, most: int, cpus: int) -> None:
    assert guest_cpus(wish, most) == cpus
