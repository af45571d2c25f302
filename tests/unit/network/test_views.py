"""What a guest is told of each layout, and what stands behind it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import NetworkFault
from shim.network.addressing.attachment import Attachment, attach
from shim.network.addressing.mac import derived_mac, link_local
from shim.network.addressing.view4 import smallest_prefix
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, NextHop, Rule
from shim.network.programs.edge import Answer, Hop, Steer
from tests.unit.network.building import (
    ETH0,
    LO,
    NET1,
    ROUTER_MAC,
    address,
    connected,
    pinned,
    route,
    slash32,
    subnet,
)

ROUTER = derived_mac("sandbox", "eth0/router")


def attached(layout: Layout, name: str = "eth0") -> Attachment:
    link = layout.link(name)
    assert link is not None
    return attach(layout, link, "sandbox")


def told(layout: Layout) -> tuple[str, str]:
    four = attached(layout).four
    assert four is not None
    return four.address, four.gateway


def told6(layout: Layout) -> tuple[str, str]:
    six = attached(layout).six
    assert six is not None
    return six.address, six.gateway


def test_subnet_is_handed_over_as_it_is() -> None:
    found = attached(subnet())
    assert told(subnet()) == ("10.88.0.2/16", "10.88.0.1")
    assert not found.edge.needed and found.notes == () and found.six is None


def test_slash32_gets_the_smallest_prefix_and_the_virtual_router() -> None:
    found = attached(slash32())
    assert told(slash32()) == ("10.1.2.3/29", "10.1.2.1")
    assert found.edge.router == ROUTER
    assert found.edge.answers == (Answer(network="10.1.2.0/29", mac=ROUTER),)
    assert found.edge.hops == (Hop(address="169.254.1.1"),)
    assert found.edge.steers == (Steer(network="0.0.0.0/0", hop=0),)
    assert "10.1.2.0 and 10.1.2.7 are out of the guest's reach" in found.notes[0]


def test_ptp_keeps_its_prefix_and_is_answered_for() -> None:
    layout = subnet(
        "10.89.0.18/24",
        routes=(
            route("default", "10.89.0.1"),
            route("10.89.0.0/24", "10.89.0.1", source="10.89.0.18"),
            route("10.89.0.1/32"),
        ),
    )
    assert told(layout) == ("10.89.0.18/24", "10.89.0.1")
    assert attached(layout).edge.answers == (Answer(network="10.89.0.0/24", mac=ROUTER),)
    assert attached(layout).notes == ()


def test_wide_prefix_without_connected_route_is_answered_for_whole() -> None:
    layout = subnet("10.4.0.66/8", routes=(route("default", "169.254.1.1"), route("169.254.1.1/32")))
    assert told(layout) == ("10.4.0.66/8", "10.0.0.1")


def test_gateway_off_a_subnet_that_is_on_link() -> None:
    layout = subnet("10.88.3.5/16", routes=(route("default", "192.0.2.1"), connected("10.88.3.5/16")))
    assert told(layout) == ("10.88.3.5/16", "10.88.255.254")
    assert "10.88.255.254 is out of the guest's reach: it stands for the gateway 192.0.2.1" in attached(layout).notes
    assert [answer.network for answer in attached(layout).edge.answers] == ["10.88.255.254/32"]


def test_no_default_route_is_no_gateway() -> None:
    layout = subnet(routes=(connected("10.88.0.2/16"),))
    assert told(layout) == ("10.88.0.2/16", "")


def test_static_routes_without_a_default_route() -> None:
    layout = subnet(routes=(connected("10.88.0.2/16"), route("10.9.0.0/16", "10.88.0.7")))
    found = attached(layout)
    assert told(layout) == ("10.88.0.2/16", "10.88.0.7")
    assert found.four is not None and found.four.beyond == ("10.9.0.0/16",)
    assert found.edge.answers == (Answer(network="10.88.0.7/32", mac=ROUTER),)
    assert found.edge.steers[-1] == Steer(network="0.0.0.0/0", hop=None)
    assert "there is no default route: what no route leads to is dropped" in found.notes


def test_another_next_hop_is_carried_by_the_gateway() -> None:
    layout = subnet(
        routes=(route("default", "10.88.0.1"), connected("10.88.0.2/16"), route("10.9.0.0/16", "10.88.0.7"))
    )
    found = attached(layout)
    assert told(layout) == ("10.88.0.2/16", "10.88.0.1")
    assert found.edge.answers == (Answer(network="10.88.0.1/32", mac=ROUTER),), "neighbours answer for themselves"
    assert found.edge.hops == (Hop(address="10.88.0.1"), Hop(address="10.88.0.7"))
    assert found.edge.steers[:2] == (
        Steer(network="10.88.0.0/16", hop=0),
        Steer(network="10.9.0.0/16", hop=1),
    )


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_refuses_is_carried(kind: str) -> None:
    refusing = route("169.254.169.254/32", kind=kind, link=0)
    found = attached(subnet(routes=(route("default", "10.88.0.1"), connected("10.88.0.2/16"), refusing)))
    assert Steer(network="169.254.169.254/32", hop=None) in found.edge.steers
    assert "what the guest sends to 169.254.169.254/32 is dropped, as a route says" in found.notes


def test_several_next_hops_become_one_and_a_note() -> None:
    hops = (
        NextHop(link=3, gateway="10.1.0.1"),
        NextHop(link=2, gateway="10.88.0.1"),
        NextHop(link=2, gateway="10.88.0.9"),
    )
    layout = subnet(routes=(route("default", link=0, hops=hops), connected("10.88.0.2/16")))
    assert told(layout) == ("10.88.0.2/16", "10.88.0.1")
    assert "of several next hops the guest's packets take 10.88.0.1" in attached(layout).notes[0]


def test_the_lowest_metric_wins_and_the_spare_is_noted() -> None:
    layout = subnet(
        routes=(
            route("default", "10.88.0.9", metric=200),
            route("default", "10.88.0.1", metric=100),
            connected("10.88.0.2/16"),
        )
    )
    assert told(layout) == ("10.88.0.2/16", "10.88.0.1")
    assert attached(layout).notes == (
        "route default via 10.88.0.9 metric 200 is a spare one that the guest does not have",
    )


def test_ipv4_by_an_ipv6_next_hop() -> None:
    layout = subnet(routes=(route("default", "fe80::1"), connected("10.88.0.2/16")))
    assert told(layout) == ("10.88.0.2/16", "10.88.255.254")
    found = attached(layout)
    assert found.edge.hops == (Hop(address="fe80::1"),)
    assert found.four is not None and found.four.next_hop == "fe80::1"


def test_a_default_route_without_a_gateway_asks_whoever_answers_for_all() -> None:
    layout = slash32(routes=(route("default"),))
    found = attached(layout)
    assert found.edge.hops == (Hop(address="169.254.1.1"),) and found.edge.steers == (
        Steer(network="0.0.0.0/0", hop=0),
    )
    assert "the default route has no gateway" in found.notes[0]


def test_a_permanent_neighbour_spares_the_question_and_is_not_followed() -> None:
    found = attached(slash32(neighbours=(pinned("169.254.1.1"),)))
    assert found.edge.hops == (Hop(address="169.254.1.1", mac=ROUTER_MAC, pinned=True),)
    learnt = attached(slash32(neighbours=(pinned("169.254.1.1", state=rt.NUD_STALE),)))
    assert learnt.edge.hops == (Hop(address="169.254.1.1", mac=ROUTER_MAC),)


def test_pinned_neighbours_of_a_subnet_are_answered_for() -> None:
    found = attached(subnet(neighbours=(pinned("10.88.0.1"), pinned("10.99.0.1"))))
    assert found.edge.answers == (Answer(network="10.88.0.1/32", mac=ROUTER_MAC),)
    assert not found.edge.steers


def test_azure_is_ptp_and_pinned_at_once() -> None:
    layout = subnet(
        "10.240.0.9/16",
        routes=(route("default", "169.254.1.1"), route("169.254.1.1/32")),
        neighbours=(pinned("169.254.1.1", "12:34:56:78:9a:bc"),),
    )
    assert told(layout) == ("10.240.0.9/16", "10.240.0.1")
    assert attached(layout).edge.hops[0].pinned


def test_a_second_nic_with_its_own_table() -> None:
    """AWS: a rule sends what comes from net1's address to a table that only net1 is in."""
    layout = Layout(
        links=(LO, ETH0, NET1),
        addresses=(address("10.0.1.5/32"), address("10.0.2.6/32", link=3)),
        routes=(
            route("default", "169.254.1.1"),
            route("169.254.1.1/32"),
            route("default", "169.254.1.2", link=3, table=2),
            route("169.254.1.2/32", link=3, table=2),
        ),
        rules=(
            Rule(version=4, priority=0, table=rt.RT_TABLE_LOCAL),
            Rule(version=4, priority=100, source="10.0.2.6/32", table=2),
            Rule(version=4, priority=32766, table=rt.RT_TABLE_MAIN),
        ),
    )
    assert attached(layout).edge.hops == (Hop(address="169.254.1.1"),)
    assert attached(layout, "net1").edge.hops == (Hop(address="169.254.1.2"),)


def test_a_rule_that_asks_for_more_than_a_source_is_noted() -> None:
    rules = (
        Rule(version=4, priority=5, table=77, narrow=True),
        Rule(version=4, priority=32766, table=rt.RT_TABLE_MAIN),
    )
    layout = subnet(rules=rules, routes=(*subnet().routes, route("default", "10.88.0.9", table=77)))
    assert attached(layout).notes == ("rule 5: from all lookup 77 is not the guest's: it asks for more than a source",)
    assert told(layout) == ("10.88.0.2/16", "10.88.0.1")


def test_mtu_is_the_smaller_one_and_the_edge_knows_one_below_ethernets() -> None:
    def mtu(link: int, way: int) -> tuple[int, int]:
        layout = subnet(routes=(route("default", "10.88.0.1", mtu=way), connected("10.88.0.2/16")))
        eth0 = ETH0.__class__(**{**{f: getattr(ETH0, f) for f in ETH0.__struct_fields__}, "mtu": link})
        found = attach(layout, eth0, "sandbox")
        return found.mtu, found.edge.mtu

    assert mtu(1500, 1400) == (1400, 1400)
    assert mtu(1500, 9000) == (1500, 0)
    assert mtu(9001, 0) == (9001, 0)
    assert mtu(1450, 0) == (1450, 1450)


def test_secondary_addresses_are_noted() -> None:
    layout = subnet(addresses=(address("10.88.0.2/16"), address("10.88.0.9/16", flags=1)))
    assert attached(layout).notes == ("address 10.88.0.9/16 is not the guest's: it is given 10.88.0.2/16",)


def dual(*routes: Any, own: str = "2001:db8::5/64", **fields: Any) -> Layout:
    return subnet(
        addresses=(address("10.88.0.2/16"), address(own), address("fe80::5/64", scope=rt.RT_SCOPE_LINK)),
        routes=(*subnet().routes, *routes, route("fe80::/64", protocol=2), route("ff00::/8", kind="multicast")),
        **fields,
    )


def test_ipv6_with_a_link_local_router_is_handed_over_as_it_is() -> None:
    layout = dual(route("default6", "fe80::1"), connected("2001:db8::5/64"))
    assert told6(layout) == ("2001:db8::5/64", "fe80::1")
    assert not attached(layout).edge.needed and attached(layout).notes == ()


def test_ipv6_slash128_with_a_link_local_router() -> None:
    layout = dual(route("default6", "fe80::1"), own="2001:db8::5/128")
    assert told6(layout) == ("2001:db8::5/128", "fe80::1")
    assert not attached(layout).edge.needed


def test_ipv6_prefix_without_connected_route_is_not_on_the_link() -> None:
    layout = dual(route("default6", "fe80::1"), own="2001:db8::5/64")
    assert told6(layout) == ("2001:db8::5/128", "fe80::1")


def test_ipv6_router_that_answers_nobody() -> None:
    layout = dual(route("default6", "fe80::1"), own="2001:db8::5/128", neighbours=(pinned("fe80::1"),))
    assert attached(layout).edge.answers == (Answer(network="fe80::1/128", mac=ROUTER_MAC),)


def test_ipv6_router_off_the_link_becomes_the_virtual_one() -> None:
    layout = dual(route("default6", "2001:db8:ffff::1"), route("2001:db8:ffff::1/128"), own="2001:db8::5/128")
    alias = str(link_local(ROUTER))
    found = attached(layout)
    assert told6(layout) == ("2001:db8::5/128", alias)
    assert found.edge.answers == (Answer(network=f"{alias}/128", mac=ROUTER),)
    assert found.edge.hops == (Hop(address="2001:db8:ffff::1"),)
    assert found.edge.steers == (Steer(network="::/0", hop=0),)


def test_next_hops_of_both_families_are_counted_together() -> None:
    layout = Layout(
        links=(LO, ETH0),
        addresses=(address("10.1.2.3/32"), address("2001:db8::5/128")),
        routes=(
            route("default", "169.254.1.1"),
            route("169.254.1.1/32"),
            route("default6", "2001:db8:ffff::1"),
            route("2001:db8:7::/48", "2001:db8:ffff::2"),
        ),
    )
    edge = attached(layout).edge
    assert [hop.address for hop in edge.hops] == ["169.254.1.1", "2001:db8:ffff::1", "2001:db8:ffff::2"]
    assert Steer(network="::/0", hop=1) in edge.steers and Steer(network="2001:db8:7::/48", hop=2) in edge.steers
    assert edge.own == ("10.1.2.3", "2001:db8::5")


def test_ipv6_takes_no_temporary_or_deprecated_address() -> None:
    layout = subnet(
        addresses=(
            address("2001:db8::9/64", flags=rt.IFA_F_TEMPORARY),
            address("2001:db8::8/64", flags=rt.IFA_F_DEPRECATED),
            address("2001:db8::5/64"),
        ),
        routes=(connected("2001:db8::5/64"),),
    )
    found = attached(layout)
    assert found.four is None and found.six is not None and found.six.address == "2001:db8::5/64"


def test_the_kernels_own_unreachable_default_is_none() -> None:
    layout = dual(connected("2001:db8::5/64"), route("default6", kind="unreachable", metric=0xFFFFFFFF, link=1))
    assert told6(layout) == ("2001:db8::5/64", "")


def test_no_address_is_a_nic_all_the_same() -> None:
    found = attached(subnet(addresses=(), routes=()))
    assert (found.four, found.six) == (None, None)
    assert found.notes == ("eth0 has no address, so the guest is told none",)


def test_nothing_but_an_address() -> None:
    layout = slash32(routes=())
    assert told(layout) == ("10.1.2.3/32", "")
    assert "the guest reaches nobody there" in attached(layout).notes[0]


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (subnet(routes=(connected("10.88.0.2/16"), route("10.9.0.0/16"))), "without a gateway a guest cannot"),
        (slash32(routes=(route("10.9.0.0/16"),)), "10.9.0.0/16 is on eth0's link and not in 10.1.2.3/32's own prefix"),
    ],
)  # fmt: skip
def test_what_can_be_neither_told_nor_carried_is_refused(layout: Layout, reason: str) -> None:
    with pytest.raises(NetworkFault, match=reason):
        attached(layout)


def test_the_virtual_routers_mac_is_per_pod_local_and_unicast() -> None:
    macs = {derived_mac(str(number), "eth0/router") for number in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 0x03 == 0x02 for mac in macs)


@given(st.integers(0x01000001, 0xDFFFFFFE).map(IPv4Address))
def test_smallest_prefix_is_the_smallest(own: IPv4Address) -> None:
    def fits(length: int) -> bool:
        network = IPv4Network((own, length), strict=False)
        return own not in (network.network_address, network.broadcast_address)

    assert smallest_prefix(own).prefixlen == next((length for length in range(30, 0, -1) if fits(length)), 0)
