"""The decision, without a kernel: what a guest is told, what is refused, and that plans pair up and round-trip."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shim.errors import InvalidRequest, NetworkFault
from shim.network import rtnetlink as rt
from shim.network.addressing import MARK, smallest_prefix
from shim.network.bridge import derived_mac
from shim.network.describe import as_json, as_text
from shim.network.layout import Address, Layout, Link, Neighbour, Route
from shim.network.operations import AnswerFor, CreateBridge, CreateTap, DelLink, NetlinkOperation, SetMac, SetSysctl
from shim.network.plan import Plan, TapOptions, make_plan

MAC = "02:00:5e:10:00:02"
LO = Link(index=1, name="lo", kind="", mac="", mtu=65536, flags=rt.IFF_UP | rt.IFF_LOOPBACK, hardware=772)
ETH0 = Link(index=2, name="eth0", kind="veth", mac=MAC, mtu=1500, flags=rt.IFF_UP, hardware=rt.ARPHRD_ETHER)
SETTINGS = {"net/ipv6/conf/eth0/addr_gen_mode": "0", "net/ipv6/conf/eth0/disable_ipv6": "0"}


def address(text: str, **fields: Any) -> Address:
    ip, _, length = text.partition("/")
    values = {"link": 2, "address": ip, "prefix": int(length), "raw": b"\0" * 8, **fields}
    return Address(**values)


def route(destination: str, gateway: str = "", **fields: Any) -> Route:
    values = {
        "link": 2,
        "destination": "0.0.0.0/0" if destination == "default" else destination,
        "kind": "unicast",
        "table": rt.RT_TABLE_MAIN,
        "protocol": 3,
        "scope": 0 if gateway else rt.RT_SCOPE_LINK,
        "gateway": gateway,
        "raw": b"\0" * 12,
        **fields,
    }
    return Route(**values)


def connected(text: str) -> Route:
    interface = IPv4Interface(text)
    return route(str(interface.network), protocol=rt.RTPROT_KERNEL, source=str(interface.ip))


def subnet(text: str = "10.88.0.2/16", gateway: str = "10.88.0.1", **fields: Any) -> Layout:
    values = {
        "links": (LO, ETH0),
        "addresses": (address(text),),
        "routes": (route("default", gateway), connected(text)),
        "sysctls": SETTINGS,
        **fields,
    }
    return Layout(**values)


def slash32(own: str = "10.1.2.3", **fields: Any) -> Layout:
    values = {
        "links": (LO, ETH0),
        "addresses": (address(f"{own}/32"),),
        "routes": (route("default", "169.254.1.1"), route("169.254.1.1/32")),
        "sysctls": SETTINGS,
        **fields,
    }
    return Layout(**values)


def plan(layout: Layout, **options: Any) -> Plan:
    return make_plan(layout, **{"seed": "sandbox", **options})


def told(layout: Layout) -> tuple[str, str]:
    nic = plan(layout).nics[0]
    return nic.address, nic.gateway


def test_subnet_is_handed_over_as_it_is() -> None:
    made = plan(subnet())
    assert told(subnet()) == ("10.88.0.2/16", "10.88.0.1")
    assert made.guest[0].mac == MAC and made.guest[0].name == "eth0"
    assert made.resolve == () and made.notes == ()


def test_slash32_gets_the_smallest_prefix() -> None:
    made = plan(slash32())
    assert told(slash32()) == ("10.1.2.3/29", "10.1.2.1")
    assert [hop.address for hop in made.resolve] == ["169.254.1.1"]
    assert "10.1.2.0 and 10.1.2.7 are out of the guest's reach" in made.notes[0]


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
    made = plan(layout)
    assert any(isinstance(operation, AnswerFor) for operation in made.operations)
    assert made.notes == ()
    # Putting the address back makes the kernel put the connected route back, which the plugin had removed.
    words = [operation.describe() for operation in made.inverses]
    assert words.index("remove route 10.89.0.0/24 from eth0") == words.index("add address 10.89.0.18/24 to eth0") + 1


def test_wide_prefix_without_connected_route_gets_the_smallest() -> None:
    layout = subnet("10.4.0.66/16", routes=(route("default", "169.254.1.1"), route("169.254.1.1/32")))
    assert told(layout) == ("10.4.0.66/30", "10.4.0.65")


def test_gateway_off_a_subnet_that_is_on_link() -> None:
    layout = subnet("10.88.3.5/16", routes=(route("default", "192.0.2.1"), connected("10.88.3.5/16")))
    assert told(layout) == ("10.88.3.5/30", "10.88.3.6")
    assert "neighbours in 10.88.0.0/16 are reached through the gateway" in plan(layout).notes


def test_no_default_route_is_no_gateway() -> None:
    layout = subnet(routes=(connected("10.88.0.2/16"),))
    assert told(layout) == ("10.88.0.2/16", "")
    assert plan(layout).guest[0].gateway is None


def test_mtu_is_the_smaller_one() -> None:
    small = subnet(routes=(route("default", "10.88.0.1", mtu=1400), connected("10.88.0.2/16")))
    large = subnet(routes=(route("default", "10.88.0.1", mtu=9000), connected("10.88.0.2/16")))
    assert (plan(small).nics[0].mtu, plan(large).nics[0].mtu) == (1400, 1500)


def test_permanent_neighbour_spares_the_question() -> None:
    entry = Neighbour(link=2, address="169.254.1.1", mac="ee:ee:ee:ee:ee:ee", state=rt.NUD_PERMANENT)
    made = plan(slash32(neighbours=(entry,)))
    assert made.resolve == ()
    assert all(operation.mac == entry.mac for operation in made.operations if isinstance(operation, AnswerFor))


def test_pinned_neighbours_of_a_subnet_are_carried_over() -> None:
    entry = Neighbour(link=2, address="10.88.0.1", mac="ee:ee:ee:ee:ee:ee", state=rt.NUD_PERMANENT)
    words = [operation.describe() for operation in plan(subnet(neighbours=(entry,))).operations]
    assert "add permanent neighbour 10.88.0.1 with MAC ee:ee:ee:ee:ee:ee on br0" in words


def test_resolving_fills_the_plan() -> None:
    made = plan(slash32())
    with pytest.raises(Exception, match="without a MAC"):
        [operation.encode() for operation in made.operations if isinstance(operation, AnswerFor)]
    full = made.resolved({"169.254.1.1": "ee:ee:ee:ee:ee:ee"})
    assert full.resolve == ()
    (answer,) = [operation for operation in full.operations if isinstance(operation, AnswerFor)]
    assert len(answer.encode()) == 5  # six hosts of a /29, less the guest


def test_devices_get_free_names_and_indexes() -> None:
    other = msgspec.structs.replace(ETH0, index=9, name="tap0")
    made = plan(subnet(links=(LO, ETH0, other)))
    (tap,) = made.taps
    (bridge,) = [operation for operation in made.operations if isinstance(operation, CreateBridge)]
    assert (tap.link, tap.index, bridge.link, bridge.index) == ("tap1", 10, "br0", 11)
    assert "interface tap0 is left alone: the guest gets eth0 only" in made.notes


def test_tap_options_reach_the_tap() -> None:
    options = TapOptions(persistent=True, owner=65534, group=100, vnet_hdr=True)
    (tap,) = plan(subnet(), tap=options).taps
    assert (tap.persistent, tap.owner, tap.group, tap.vnet_hdr) == (True, 65534, 100, True)


def test_leaving_the_mac_out() -> None:
    made = plan(subnet(), keep_mac=False)
    assert not any(isinstance(operation, SetMac) for operation in made.operations)
    assert made.nics[0].mac == derived_mac("sandbox", "eth0") != MAC


def test_substitute_mac_is_per_pod_local_and_unicast() -> None:
    macs = {derived_mac(str(number), "eth0") for number in range(1000)}
    assert len(macs) == 1000
    assert all(int(mac[:2], 16) & 0x03 == 0x02 for mac in macs)


def test_ipv6_is_off_before_anything_comes_up() -> None:
    words = [operation.describe() for operation in plan(subnet()).operations]
    off = [f"set net/ipv6/conf/{name}/disable_ipv6 to 1" for name in ("tap0", "br0", "eth0")]
    assert all(words.index(word) < words.index("make eth0 a port of br0") for word in off)
    none = plan(subnet(sysctls={}))
    assert not any(isinstance(operation, SetSysctl) for operation in none.operations)


def test_secondary_addresses_are_noted() -> None:
    layout = subnet(
        addresses=(address("10.88.0.2/16"), address("10.88.0.9/16", flags=1), address("fd00::5/64")),
    )
    assert plan(layout).notes == (
        "address 10.88.0.9/16 is not the guest's: it is given 10.88.0.2/16",
        "address fd00::5/64 is not the guest's: guests are given IPv4 only",
    )


def test_routes_through_the_same_next_hop_are_carried() -> None:
    layout = subnet(
        routes=(route("default", "10.88.0.1"), connected("10.88.0.2/16"), route("10.244.0.0/16", "10.88.0.1")),
    )
    assert plan(layout).notes == ()


LINK = "eth0"
REFUSALS: dict[str, tuple[Layout, str]] = {
    "no eth0": (
        Layout(links=(LO, msgspec.structs.replace(ETH0, name="net1"))),
        r"no eth0, only lo, net1; .*io\.unikernel\.network=none",
    ),
    "no address": (subnet(addresses=()), "no IPv4 address"),
    "IPv6 only": (subnet(addresses=(address("fd00::5/64"),)), r"IPv6 addresses only \(fd00::5/64\)"),
    "link-local IPv6 only": (subnet(addresses=(address("fe80::5/64", scope=253),)), "no IPv4 address"),
    "down": (subnet(links=(LO, msgspec.structs.replace(ETH0, flags=0))), "is down"),
    "a port already": (subnet(links=(LO, msgspec.structs.replace(ETH0, master=7))), "already a port"),
    "no Ethernet": (subnet(links=(LO, msgspec.structs.replace(ETH0, hardware=778))), "not Ethernet"),
    "no ARP": (subnet(links=(LO, msgspec.structs.replace(ETH0, flags=rt.IFF_UP | rt.IFF_NOARP))), "not Ethernet"),
    **{
        kind: (subnet(links=(LO, msgspec.structs.replace(ETH0, kind=kind))), f"is {kind} that cannot be bridged")
        for kind in ("macvlan", "ipvlan", "netkit")
    },
    "already plumbed": (
        subnet(links=(LO, ETH0, msgspec.structs.replace(ETH0, index=4, name="br0", alias=f"{MARK}other"))),
        "already plumbed for sandbox other",
    ),
    "several next hops": (
        subnet(routes=(route("default", hops=(2, 2)), connected("10.88.0.2/16"))),
        "default route has several next hops",
    ),
    "two equal defaults": (
        subnet(routes=(route("default", "10.88.0.1"), route("default", "10.88.0.9"), connected("10.88.0.2/16"))),
        "default route has several next hops",
    ),
    "default on the link": (subnet(routes=(route("default"), connected("10.88.0.2/16"))), "no gateway"),
    "IPv4 via IPv6": (subnet(routes=(route("default", "fe80::1"), connected("10.88.0.2/16"))), "next hop is fe80::1"),
    "another next hop": (
        subnet(routes=(route("default", "10.88.0.1"), connected("10.88.0.2/16"), route("10.9.0.0/16", "10.88.0.7"))),
        r"10\.9\.0\.0/16 via 10\.88\.0\.7 has another next hop",
    ),
    "nowhere to send what is not on-link": (
        subnet(routes=(connected("10.88.0.2/16"), route("10.9.0.0/16"))),
        "without a gateway",
    ),
    "a policy": (
        subnet(
            routes=(
                route("default", "10.88.0.1"),
                connected("10.88.0.2/16"),
                route("169.254.169.254/32", kind="blackhole", link=0),
            )
        ),
        "refuses traffic by a route",
    ),
    "nothing to be a gateway": (slash32(routes=()), "no default route"),
    "an address at the edge of everything": (slash32("10.0.0.0"), "too large to answer for"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_why(name: str) -> None:
    layout, reason = REFUSALS[name]
    with pytest.raises(NetworkFault, match=reason):
        plan(layout)


def test_unknown_dataplane() -> None:
    with pytest.raises(InvalidRequest, match="no dataplane 'carrier-pigeon'; choose one of bridge"):
        plan(subnet(), dataplane="carrier-pigeon")


addresses = st.integers(0x01000001, 0xDFFFFFFE).map(IPv4Address)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    own = draw(addresses)
    length = draw(st.integers(8, 32))
    network = IPv4Network((own, length), strict=False)
    inside = st.integers(int(network.network_address), int(network.broadcast_address)).map(IPv4Address)
    gateway = draw(st.one_of(inside, addresses, st.just(IPv4Address("169.254.1.1"))))
    assume(gateway != own)
    found = [route("default", str(gateway), mtu=draw(st.sampled_from([0, 1280, 1400, 9000])))]
    if draw(st.booleans()):
        found.append(connected(f"{own}/{length}"))
    if draw(st.booleans()):
        found.append(route(f"{gateway}/32"))
    if draw(st.booleans()):
        found.append(route(str(network), str(gateway), source=str(own)))
    state = draw(st.sampled_from([rt.NUD_PERMANENT, rt.NUD_REACHABLE, rt.NUD_FAILED]))
    entries = (Neighbour(link=2, address=str(gateway), mac="ee:ee:ee:ee:ee:ee", state=state),)
    return Layout(
        links=(LO, msgspec.structs.replace(ETH0, mtu=draw(st.integers(68, 9001)))),
        addresses=(address(f"{own}/{length}"), address("fe80::5/64", scope=253)),
        routes=tuple(found),
        neighbours=entries if draw(st.booleans()) else (),
        sysctls=draw(st.sampled_from([SETTINGS, {}])),
    )


@given(layouts())
def test_whatever_the_layout(layout: Layout) -> None:
    try:
        made = plan(layout)
    except NetworkFault as fault:
        assert "too large to answer for" in str(fault)
        return
    guest = made.guest[0]
    assert guest.address is not None and guest.gateway is not None
    network = guest.address.network
    edges = (network.network_address, network.broadcast_address)
    assert guest.gateway in network and guest.gateway not in edges and guest.gateway != guest.address.ip
    assert guest.address.ip not in edges and network.prefixlen <= 30
    assert str(guest.address.ip) == layout.addresses[0].address
    assert guest.mtu <= layout.links[1].mtu
    assert made == plan(layout), "two runs must agree"
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made
    assert msgspec.json.decode(msgspec.json.encode(layout), type=Layout) == layout
    for step in made.steps:
        assert bool(step.undo) != bool(step.lapses), "each step is undone or lapses with a device"
        if isinstance(step.do, CreateTap | CreateBridge):
            assert step.undo == (DelLink(link=step.do.link),)
    # Everything refers to devices that exist or were made before.
    known = {link.index for link in layout.links}
    for operation in made.operations:
        if isinstance(operation, CreateTap | CreateBridge):
            known.add(operation.index)
        assert getattr(operation, "index", 2) in known
    resolved = made.resolved({hop.address: "02:00:00:00:00:01" for hop in made.resolve})
    for operation in (*resolved.operations, *resolved.inverses):
        assert operation.describe()
        if isinstance(operation, NetlinkOperation):
            assert operation.encode()


@given(addresses)
def test_smallest_prefix_is_the_smallest(own: IPv4Address) -> None:
    def fits(length: int) -> bool:
        network = IPv4Network((own, length), strict=False)
        return own not in (network.network_address, network.broadcast_address)

    longest = next((length for length in range(30, 0, -1) if fits(length)), 0)
    network = smallest_prefix(own)
    if network is None:
        assert longest < 22
    else:
        assert network.prefixlen == longest


def test_devices_go_last_when_undoing() -> None:
    kinds = [isinstance(operation, DelLink) for operation in plan(subnet()).inverses]
    assert kinds == sorted(kinds) and sum(kinds) == 2


def test_description() -> None:
    text = as_text(plan(slash32()))
    assert "  address  10.1.2.3/29\n  gateway  10.1.2.1\n  MAC      02:00:5e:10:00:02\n  MTU      1500\n" in text
    assert "1. set net/ipv6/conf/eth0/addr_gen_mode to 1\n" in text
    assert "undone by: set net/ipv6/conf/eth0/addr_gen_mode to 0" in text
    document = json.loads(as_json(plan(slash32())))
    assert document["guest"][0] == {
        "name": "eth0",
        "tap": "tap0",
        "mac": MAC,
        "mtu": 1500,
        "address": "10.1.2.3/29",
        "gateway": "10.1.2.1",
    }
    assert all(entry["inverses"] or entry["lapses"] for entry in document["operations"])
