"""Ids that become paths."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.sandbox.identifiers import check


@pytest.mark.parametrize("value", ["a", "k8s.io", "a-b_c.d", "0" * 76])
def test_good(value: str) -> None:
    assert check(value, "container id") == value


@pytest.mark.parametrize(
    "value", ["", "a/b", "../a", "..", ".", "-a", "a-", "a b", "a\n", "é", "a--b", "0" * 77, "a\0"]
)
def test_bad(value: str) -> None:
    with pytest.raises(InvalidRequest, match="not a container id"):
        check(value, "container id")
