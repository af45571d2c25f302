"""From what the kernel says and a plan to a picture: every dataplane, with the plan and without."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from shim.network.addressing.interfaces import DATAPLANES
from shim.network.topology.assembling import questions
from shim.network.topology.model import Chain, Element, Entry, Topology
from tests.unit.network import building
from tests.unit.network.topology import made_up
from tests.unit.network.topology.made_up import NETNS, POD_MAC, MadeUp, replaced

LAYOUTS: dict[str, Callable[[str], MadeUp]] = {
    "bridged": made_up.bridged,
    "routed": made_up.routed,
    "dual stack": made_up.dual_stack,
}


def by_sort(chain: Chain) -> dict[str, Element]:
    return {element.sort: element for element in chain.elements}


@pytest.mark.parametrize("dataplane", DATAPLANES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_as_planned_has_no_faults(layout: str, dataplane: str) -> None:
    found = LAYOUTS[layout](dataplane).topology()
    assert found.faults == () and found.plumbed
    (now,) = found.now
    assert now.dataplane == dataplane and all(joint.whole for joint in now.joints)


@pytest.mark.parametrize(
    ("dataplane", "sorts", "joints"),
    [
        ("bridge", ["guest", "tap", "bridge", "interface"], ["descriptor", "port", "port"]),
        ("mirror", ["guest", "tap", "interface"], ["descriptor", "redirect"]),
        ("macvtap", ["guest", "tap", "interface"], ["descriptor", "macvtap"]),
    ],
)
def test_the_way_of_each_dataplane(dataplane: str, sorts: list[str], joints: list[str]) -> None:
    (now,) = made_up.bridged(dataplane).topology().now
    assert [element.sort for element in now.elements] == [*sorts, "peer", "switch"]
    assert [joint.sort for joint in now.joints] == [*joints, "veth", "port"]
    for joint, upper, lower in zip(now.joints, now.elements, now.elements[1:], strict=False):
        assert (joint.upper, joint.lower) == (upper.id, lower.id)


def test_what_is_told_and_what_was_before() -> None:
    found = made_up.routed().topology()
    guest = by_sort(found.now[0])["guest"]
    assert guest.addresses == ("10.1.2.3/29",) and guest.gateways == ("10.1.2.1",) and guest.mac == POD_MAC
    assert guest.next_hops == ("169.254.1.1",) and guest.router and guest.dns == ("10.96.0.10",)
    assert guest.kind == "qemu (pid 4242)" and guest.mtu == 1500
    before = by_sort(found.before[0])
    assert before["interface"].addresses == ("10.1.2.3/32",) and before["interface"].mac == POD_MAC
    assert before["interface"].mtu == 1500
    assert before["stack"].routes == ("default via 169.254.1.1", "169.254.1.1/32")
    # What moves on the node is no part of how it was left.
    assert before["peer"].neighbours == () and by_sort(found.now[0])["peer"].neighbours[0].mac == POD_MAC


def test_a_neighbour_that_the_plugin_pinned_was_there_before() -> None:
    pinned = (building.pinned("10.88.0.1"),)
    before = made_up.bridged("mirror", neighbours=pinned).topology().before[0].elements[0]
    assert before.neighbours == (Entry(address="10.88.0.1", mac=building.ROUTER_MAC, state="permanent"),)
    now = made_up.not_plumbed().with_layout(neighbours=pinned).topology(plan=False).now[0].elements[0]
    assert now.neighbours == before.neighbours


def test_who_owns_what() -> None:
    found = made_up.bridged().topology()
    owners = {element.sort: element.owner for element in found.now[0].elements}
    assert owners == {
        "guest": "guest", "tap": "shim", "bridge": "shim", "interface": "cni", "peer": "node", "switch": "node",
    }  # fmt: skip


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_without_a_plan_the_way_is_found_and_what_was_told_is_not(dataplane: str) -> None:
    found = made_up.bridged(dataplane).topology(plan=False)
    assert found.plumbed and found.before == () and found.faults == ()
    assert found.id == made_up.SANDBOX and found.netns == NETNS
    (now,) = found.now
    known = by_sort(made_up.bridged(dataplane).topology().now[0])
    for sort, element in by_sort(now).items():
        if sort == "guest":
            assert element.words and not element.mac and not element.addresses
        else:
            assert (element.name, element.mac) == (known[sort].name, known[sort].mac)


def test_without_a_plan_several_interfaces_have_their_taps() -> None:
    found = made_up.two_nics().topology(plan=False)
    assert [(chain.nic, by_sort(chain)["tap"].name) for chain in found.now] == [("eth0", "tap0"), ("net1", "tap1")]


def test_without_a_plan_a_tap_that_is_gone_is_a_fault_all_the_same() -> None:
    found = made_up.bridged("mirror").without_link("tap0").topology(plan=False)
    assert [fault.code for fault in found.faults] == ["tap-missing"]


def test_two_interfaces_are_two_ways() -> None:
    found = made_up.two_nics().topology()
    assert [chain.nic for chain in found.now] == [chain.nic for chain in found.before] == ["eth0", "net1"]
    second = found.now[1]
    assert by_sort(second)["peer"].name == "ens5" and second.joints[-1].sort == "parent"
    ids = [element.id for chain in found.now for element in chain.elements]
    assert len(ids) == len(set(ids))


def test_a_pod_that_is_not_plumbed() -> None:
    made = made_up.not_plumbed()
    found = made.topology(plan=False)
    assert not found.plumbed and found.before == () and found.faults == ()
    elements = by_sort(found.now[0])
    assert list(elements) == ["stack", "interface", "peer", "switch"]
    assert elements["interface"].addresses == ("10.88.0.2/16",)
    assert elements["stack"].routes[0] == "default via 10.88.0.1"


def test_an_end_that_the_node_does_not_see() -> None:
    made = made_up.bridged()
    found = replaced(made, beyond={}).topology()
    assert found.faults == ()
    peer = by_sort(found.now[0])["peer"]
    assert peer.words and not peer.mac


def test_a_pod_without_any_interface() -> None:
    made = made_up.not_plumbed().without_link("eth0")
    assert made.topology(plan=False).now == ()


def test_a_tap_that_is_taken_by_name_says_by_whom() -> None:
    made = made_up.bridged("mirror")
    index = made.link("tap0").index
    further = dict(made.seen.further)
    tap = further[index].tap
    assert tap is not None
    further[index] = replaced(further[index], tap=replaced(tap, persistent=True, owner=65534))
    found = made.with_seen(further=further).topology()
    assert "65534" in by_sort(found.now[0])["tap"].words[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_asked_on_the_node(layout: str) -> None:
    made = LAYOUTS[layout]("mirror")
    (question,) = questions(made.seen, made.plan)
    told = made.plan.nics[0]
    assert question.link.name == "eth0"
    assert question.addresses == tuple(
        address.partition("/")[0] for address in (told.address, told.address6) if address
    )


def test_what_is_asked_of_a_pod_that_is_not_plumbed() -> None:
    (question,) = questions(made_up.not_plumbed().seen, None)
    assert question.addresses == ("10.88.0.2",)


def test_it_is_json_as_it_stands() -> None:
    found = made_up.dual_stack().topology()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Topology) == found
