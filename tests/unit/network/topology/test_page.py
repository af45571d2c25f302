"""docs/topology.md names every fault and every key that there is, and no fault that there is not."""

from __future__ import annotations

import re

import msgspec
import pytest

from shim.network.topology import model
from tests.unit.cli.topology.pictures import ROOT
from tests.unit.network.topology.test_faults import BROKEN

PAGE = (ROOT / "docs" / "topology.md").read_text()


def test_each_fault_that_has_a_test_is_on_the_page_and_no_other() -> None:
    rows = PAGE.partition("| code in the JSON |")[2].partition("\n\n")[0].splitlines()[2:]
    assert {code for row in rows for code in re.findall("`([a-z0-9-]+)`", row.split("|")[1])} == set(BROKEN)


@pytest.mark.parametrize("kind", [model.Topology, model.Chain, model.Element, model.Joint, model.Fault])
def test_each_key_is_on_the_page(kind: type[msgspec.Struct]) -> None:
    table = PAGE.partition("## The JSON")[2]
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in table] == []
