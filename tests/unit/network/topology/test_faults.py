"""Each thing that can be wrong is found, is all that is found, and says where it is and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from shim.network.kernel import rtnetlink as rt
from shim.network.topology.seen import Filter, Forwarding
from tests.unit.network.topology import made_up
from tests.unit.network.topology.made_up import NETNS, PEER, POD_MAC, MadeUp, places, replaced

STRANGER = "02:00:00:00:00:99"
DOWN = 0


class Broken(NamedTuple):
    """A network with one thing wrong: where that is marked, and a pattern of what is said."""

    made: Callable[[], MadeUp]
    at: str
    says: str


def _without_filter(dataplane: str, link: str) -> MadeUp:
    made = made_up.bridged(dataplane)
    index = made.link(link).index
    return made.with_seen(filters=tuple(each for each in made.seen.filters if each.link != index))


def _peer(made: MadeUp, **fields: object) -> MadeUp:
    peer = made.beyond[2].peer
    assert peer is not None
    return made.with_beyond(peer=replaced(peer, **fields))


def _switch(made: MadeUp, **fields: object) -> MadeUp:
    switch = made.beyond[2].switch
    assert switch is not None
    return made.with_beyond(switch=replaced(switch, **fields))


def _node_port(made: MadeUp, state: str) -> MadeUp:
    port = made.beyond[2].port
    assert port is not None
    return made.with_beyond(port=replaced(port, state=state))


def _ipv6_on(device: str) -> MadeUp:
    return made_up.bridged().with_layout(sysctls={f"net/ipv6/conf/{device}/disable_ipv6": "0"})


def _learned_by_ours(*entries: tuple[str, str]) -> MadeUp:
    made = made_up.bridged()
    return made.with_seen(forwarding=tuple(Forwarding(link=made.link(port).index, mac=mac) for port, mac in entries))


BROKEN: dict[str, Broken] = {
    "tap-missing": Broken(lambda: made_up.bridged("mirror").without_link("tap0"), "tap", "tap0 is gone"),
    "tap-down": Broken(lambda: made_up.bridged().with_link("tap0", flags=DOWN), "tap", "tap0 is down"),
    "tap-not-open": Broken(
        lambda: made_up.bridged("mirror").with_link("tap0", flags=rt.IFF_UP), "guest-tap", "nobody has tap0 open"
    ),
    "tap-mtu": Broken(
        lambda: made_up.bridged().with_link("tap0", mtu=1400), "tap", "1400, and the guest was told 1500"
    ),
    "no-macvtap": Broken(
        lambda: made_up.bridged("macvtap").with_link("tap0", parent=9), "tap-interface", "tap0 is not on eth0"
    ),
    "program-missing": Broken(
        lambda: _without_filter("mirror", "tap0"),
        "tap",
        "unikernel-guest is gone from tap0's ingress.*redirect to eth0",
    ),
    "bridge-missing": Broken(lambda: made_up.bridged().without_link("br0"), "bridge", "nothing joins tap0 to eth0"),
    "bridge-down": Broken(lambda: made_up.bridged().with_link("br0", flags=DOWN), "bridge", "br0 is down"),
    "bridge-mtu": Broken(lambda: made_up.bridged().with_link("br0", mtu=1280), "bridge", "1280, less than the 1500"),
    "no-port": Broken(
        lambda: made_up.bridged().with_link("eth0", master=0), "bridge-interface", "eth0 is no port of br0"
    ),
    "port-state": Broken(
        lambda: made_up.bridged().with_port("tap0", state="blocking"), "tap-bridge", "tap0 is blocking, not forwarding"
    ),
    "port-learning": Broken(
        lambda: made_up.bridged().with_port("eth0", learning=True), "bridge-interface", "br0 learns MACs from eth0"
    ),
    "guest-behind-wire": Broken(
        lambda: _learned_by_ours(("eth0", POD_MAC)), "bridge", f"learned the guest's MAC {POD_MAC} behind eth0"
    ),
    "guest-mac": Broken(
        lambda: _learned_by_ours(("tap0", STRANGER)), "bridge", f"sends from {STRANGER}, and was told {POD_MAC}"
    ),
    "interface-missing": Broken(lambda: made_up.bridged().without_link("eth0"), "interface", "eth0 is gone"),
    "interface-down": Broken(lambda: made_up.bridged().with_link("eth0", flags=DOWN), "interface", "eth0 is down"),
    "mark": Broken(lambda: made_up.bridged().with_link("eth0", alias=""), "interface", "does not carry our mark"),
    "interface-mac": Broken(
        lambda: made_up.bridged().with_link("eth0", mac=POD_MAC), "interface", f"eth0 has the guest's MAC {POD_MAC}"
    ),
    "interface-mtu": Broken(
        lambda: _peer(made_up.bridged().with_link("eth0", mtu=1400), mtu=1400), "interface", "1400"
    ),
    "address-held": Broken(
        lambda: made_up.bridged().with_address("eth0", "10.88.0.2/16"), "interface", r"still holds 10\.88\.0\.2/16"
    ),
    "ipv6-on": Broken(lambda: _ipv6_on("tap0"), "tap", "IPv6 is on at tap0"),
    "peer-down": Broken(lambda: _peer(made_up.bridged(), flags=DOWN), "peer", "which eth0 leads to, is down"),
    "peer-mtu": Broken(lambda: _peer(made_up.bridged(), mtu=1400), "peer", "1400, and eth0 has 1500"),
    "switch-down": Broken(lambda: _switch(made_up.bridged(), flags=DOWN), "switch", "cni0 is down"),
    "guest-elsewhere": Broken(
        lambda: made_up.bridged().with_beyond(forwarding=(Forwarding(link=43, mac=POD_MAC),)),
        "switch",
        "behind veth93aa01f2, not behind veth5c1d20e8",
    ),
    "neighbour-failed": Broken(
        lambda: made_up.bridged().with_neighbour("", rt.NUD_FAILED),
        "switch",
        r"asked for 10\.88\.0\.2 on cni0, and nobody",
    ),
    "neighbour-mac": Broken(
        lambda: made_up.bridged().with_neighbour(STRANGER, rt.NUD_PERMANENT),
        "switch",
        rf"what is for 10\.88\.0\.2 to {STRANGER}, and the guest is {POD_MAC}",
    ),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_fault_is_found_alone_where_it_is(code: str) -> None:
    broken = BROKEN[code]
    found = broken.made().topology()
    assert [fault.code for fault in found.faults] == [code], found.faults
    (fault,) = found.faults
    assert fault.at == f"eth0:{broken.at}" and re.search(broken.says, fault.sentence), fault
    assert fault.remedy
    assert fault.at in places(found)


@pytest.mark.parametrize("code", ["no-port", "port-state", "tap-not-open", "no-macvtap", "peer-down"])
def test_a_wire_that_carries_nothing_is_not_whole(code: str) -> None:
    (now,) = BROKEN[code].made().topology().now
    assert [joint.sort for joint in now.joints if not joint.whole]


def test_what_to_do_in_the_pods_namespace_is_a_command_line() -> None:
    (fault,) = BROKEN["tap-down"].made().topology().faults
    assert fault.remedy == f"nsenter --net={NETNS} ip link set tap0 up"


@pytest.mark.parametrize("link", ["tap0", "eth0"])
def test_a_redirect_needs_both_programs(link: str) -> None:
    (now,) = _without_filter("mirror", link).topology().now
    assert [joint.whole for joint in now.joints if joint.sort == "redirect"] == [False]


def test_others_programs_are_shown_and_are_no_faults() -> None:
    made = made_up.bridged("mirror")
    other = Filter(link=2, place="egress", kind="bpf", name="cil_to_container")
    found = made.with_seen(filters=(*made.seen.filters, other)).topology()
    assert found.faults == ()
    programs = {each.name: each.owner for element in found.now[0].elements for each in element.programs}
    assert programs == {"unikernel-guest": "shim", "unikernel-wire": "shim", "cil_to_container": "unknown"}


def test_a_mac_that_is_nobodys() -> None:
    made = made_up.bridged()
    (fault,) = made.with_link("eth0", mac=STRANGER).topology().faults
    assert "was given" in fault.sentence and made.link("eth0").mac in fault.remedy
    (fault,) = made_up.bridged("mirror").with_link("eth0", mac=STRANGER).topology().faults
    assert "takes nothing that is for the guest" in fault.sentence and POD_MAC in fault.remedy


def test_a_guest_with_another_mac_is_seen_on_the_nodes_bridge_where_we_have_none() -> None:
    made = made_up.bridged("mirror").with_beyond(forwarding=(Forwarding(link=PEER, mac=STRANGER),))
    assert list(made.faults()) == ["guest-mac"] and made.faults()["guest-mac"].at == "eth0:switch"


def test_what_is_learned_behind_a_parent_is_its_other_childrens_too() -> None:
    made = made_up.bridged("mirror").with_link("eth0", kind="macvlan")
    assert not made.with_beyond(forwarding=(Forwarding(link=PEER, mac=STRANGER),)).faults()


def test_where_the_guests_mac_was_learned_instead_is_shown() -> None:
    (now,) = BROKEN["guest-elsewhere"].made().topology().now
    assert [(each.mac, each.port) for each in now.elements[-1].learned] == [(POD_MAC, "veth93aa01f2")]


def test_a_guest_that_uses_further_macs_as_well_is_no_fault() -> None:
    assert not _learned_by_ours(("tap0", STRANGER), ("tap0", POD_MAC)).faults()


@pytest.mark.parametrize("state", [rt.NUD_INCOMPLETE, rt.NUD_NOARP, rt.NUD_STALE])
def test_an_entry_that_is_not_wrong(state: int) -> None:
    mac = "" if state == rt.NUD_INCOMPLETE else POD_MAC
    assert not made_up.routed().with_neighbour(mac, state).faults()


def test_a_port_of_the_nodes_bridge_that_does_not_forward() -> None:
    found = _node_port(made_up.bridged(), "disabled").topology()
    assert [(fault.code, fault.at) for fault in found.faults] == [("port-state", "eth0:peer-switch")]


@pytest.mark.parametrize("family", ["10.88.0.2/16", "fd00:88::2/64"])
def test_of_two_addresses_the_one_that_is_held_is_marked(family: str) -> None:
    (fault,) = made_up.dual_stack().with_address("eth0", family).topology().faults
    assert (fault.field, fault.value) == ("addresses", family)


def test_another_address_that_somebody_gave_eth0_is_not_the_guests() -> None:
    assert not made_up.bridged().with_address("eth0", "10.99.0.1/24").faults()


def test_several_faults_are_told_from_the_guest_outwards() -> None:
    made = made_up.bridged().with_link("tap0", flags=DOWN, mtu=1400).with_address("eth0", "10.88.0.2/16")
    made = made.with_neighbour(STRANGER, rt.NUD_PERMANENT)
    assert list(made.faults()) == ["tap-down", "address-held", "neighbour-mac", "tap-mtu"]


def test_a_second_interface_has_faults_of_its_own() -> None:
    made = made_up.two_nics().with_link("tap1", flags=DOWN)
    assert [fault.at for fault in made.topology().faults] == ["net1:tap"]
