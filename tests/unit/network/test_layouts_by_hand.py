"""What is decided about interfaces that the tests' kernel cannot make."""

from __future__ import annotations

import re

import pytest

from shim.errors import NetworkFault
from shim.network.addressing.interfaces import DATAPLANES, candidates
from shim.network.plan import make_plan
from tests.unit.network.layouts_by_hand import GATEWAY, LAYOUTS, OWN, PREFIX, ByHand

each_layout = pytest.mark.parametrize("made", LAYOUTS.values(), ids=LAYOUTS)


@each_layout
def test_candidates(made: ByHand) -> None:
    assert candidates(made.layout) == made.candidates


@each_layout
def test_dataplane_that_suits_is_chosen(made: ByHand) -> None:
    if not made.refused:
        assert make_plan(made.layout, seed="sandbox").nics[0].dataplane == "mirror"
        return
    with pytest.raises(NetworkFault):
        make_plan(made.layout, seed="sandbox")


@each_layout
@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_each_dataplane(made: ByHand, dataplane: str) -> None:
    """It is refused with the reason, or the guest gets the pod's address and, where there is ARP, its gateway."""
    if dataplane in made.refusals:
        with pytest.raises(NetworkFault) as refused:
            make_plan(made.layout, seed="sandbox", dataplane=dataplane, interfaces=("eth0",))
        assert re.search(made.refusals[dataplane], str(refused.value)) and refused.value.remedy
        return
    (told,) = make_plan(made.layout, seed="sandbox", dataplane=dataplane, interfaces=("eth0",)).guest
    eth0 = made.layout.link("eth0")
    assert eth0 is not None and told.mac == eth0.mac and told.mtu == eth0.mtu
    assert str(told.address) == f"{OWN}/{PREFIX}" and str(told.gateway) == GATEWAY


def test_ipvlan_keeps_its_addresses() -> None:
    """Its parent hands it only what is for an address that it has."""
    for name in ("ipvlan-l2", "ipvlan-l3"):
        words = [step.do.describe() for step in make_plan(LAYOUTS[name].layout, seed="sandbox").steps]
        assert not [word for word in words if "address" in word or "route" in word or "MAC" in word], words
