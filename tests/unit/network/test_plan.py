"""The whole decision: devices and their names, what is refused, and that plans pair up, round-trip and are true."""

from __future__ import annotations

import itertools
import json
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shim.errors import InvalidRequest, NetworkFault
from shim.network.addressing.interfaces import DATAPLANES, MARK, candidates
from shim.network.dataplanes.wiring import TapOptions
from shim.network.describe import as_json, as_text
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, Link, Neighbour
from shim.network.loading import written
from shim.network.operations import (
    AttachProgram,
    CreateBridge,
    CreateMacvtap,
    CreateTap,
    DelLink,
    DetachProgram,
    NetlinkOperation,
    SetSysctl,
)
from shim.network.plan import Plan
from shim.network.view import GuestInterface
from tests.unit.network.building import (
    ETH0,
    LO,
    MAC,
    NET1,
    SETTINGS,
    address,
    connected,
    pinned,
    plan,
    route,
    slash32,
    subnet,
)


def changed(link: Link, **fields: Any) -> Link:
    return msgspec.structs.replace(link, **fields)


def test_the_guest_has_the_interfaces_mac() -> None:
    for dataplane in DATAPLANES:
        (nic,) = plan(subnet(), dataplane=dataplane).nics
        assert (nic.name, nic.mac, nic.dataplane, nic.index) == ("eth0", MAC, dataplane, 2)


def test_resolving_fills_the_programs_by_interface() -> None:
    made = plan(slash32())
    assert [(hop.index, hop.address, hop.vital) for hop in made.resolve] == [(2, "169.254.1.1", True)]
    assert made.resolved({(3, "169.254.1.1"): "ee:ee:ee:ee:ee:ee"}).resolve == made.resolve
    full = made.resolved({(2, "169.254.1.1"): "ee:ee:ee:ee:ee:ee"})
    assert full.resolve == ()
    programs = [operation for operation in full.operations if isinstance(operation, AttachProgram)]
    assert {hop.mac for operation in programs for hop in operation.edge.hops} == {"ee:ee:ee:ee:ee:ee"}
    assert [operation.side for operation in programs] == ["wire", "guest"]


def test_only_the_default_next_hop_is_vital() -> None:
    layout = subnet(routes=(*subnet().routes, route("10.9.0.0/16", "10.88.0.7")))
    assert [(hop.address, hop.vital) for hop in plan(layout).resolve] == [("10.88.0.1", True), ("10.88.0.7", False)]


def test_devices_get_free_names_and_indexes() -> None:
    other = changed(ETH0, index=9, name="tap0", kind="tun")
    made = plan(subnet(links=(LO, ETH0, other)), dataplane="bridge")
    (tap,) = made.taps
    (bridge,) = [operation for operation in made.operations if isinstance(operation, CreateBridge)]
    assert isinstance(tap, CreateTap)
    assert (tap.link, tap.index, bridge.link, bridge.index) == ("tap1", 10, "br0", 11)


def test_every_interface_is_a_nic_in_order_or_those_that_are_named() -> None:
    layout = subnet(links=(LO, NET1, ETH0), addresses=(address("10.88.0.2/16"), address("10.1.0.2/24", link=3)))
    assert [(nic.name, nic.tap) for nic in plan(layout).nics] == [("eth0", "tap0"), ("net1", "tap1")]
    assert [nic.name for nic in plan(layout, interfaces=("net1", "eth0")).nics] == ["net1", "eth0"]
    only = plan(layout, interfaces=("net1",))
    assert [nic.name for nic in only.nics] == ["net1"] and "interface eth0 is left alone" in only.notes


def test_two_interfaces_take_no_more_round_trips_than_one() -> None:
    layout = subnet(links=(LO, ETH0, NET1))
    for dataplane in DATAPLANES:
        phases = [isinstance(operation, NetlinkOperation) for operation in plan(layout, dataplane=dataplane).operations]
        changes = sum(one != other for one, other in itertools.pairwise(phases))
        assert changes <= 3, "two batches of requests, two visits"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (changed(NET1, name="tunl0", hardware=768, flags=rt.IFF_NOARP), False),
        (changed(NET1, flags=0), False),
        (changed(NET1, master=9), False),
        (changed(NET1, kind="dummy"), False),
        (changed(NET1, kind="vlan"), True),
        (changed(NET1, kind="macvlan"), True),
        (changed(NET1, kind="ipvlan", mode="l2"), True),
        (changed(NET1, kind="ipvlan", mode="l3", flags=rt.IFF_UP | rt.IFF_NOARP), True),
        (changed(NET1, kind="ipvlan", mode="l3s", flags=rt.IFF_UP | rt.IFF_NOARP), False),
        (changed(NET1, kind=""), True),
    ],
)  # fmt: skip
def test_what_counts_as_a_nic(link: Link, expected: bool) -> None:
    assert (candidates(subnet(links=(LO, link, ETH0))) == ("eth0", link.name)) is expected


def test_macvlan_and_ipvlan_are_mirrored() -> None:
    """This machine's kernel has no ipvlan; the layouts are made up after its driver (drivers/net/ipvlan)."""
    for kind in ("macvlan", "ipvlan"):
        (nic,) = plan(subnet(links=(LO, changed(ETH0, kind=kind, mode="l2" if kind == "ipvlan" else "")))).nics
        assert nic.dataplane == "mirror"


def test_ipvlan_keeps_its_addresses_as_it_gets_frames_by_them() -> None:
    words = [
        operation.describe()
        for operation in plan(subnet(links=(LO, changed(ETH0, kind="ipvlan", mode="l2")))).operations
    ]
    assert not any("remove" in word or ("disable_ipv6" in word and "eth0" in word) for word in words)


def test_ipvlan_in_l3_mode_has_nobody_to_answer_but_us() -> None:
    link = changed(ETH0, kind="ipvlan", mode="l3", flags=rt.IFF_UP | rt.IFF_NOARP)
    made = plan(subnet(links=(LO, link)))
    (guest,) = [op for op in made.operations if isinstance(op, AttachProgram) and op.side == "guest"]
    assert [answer.network for answer in guest.edge.answers] == ["10.88.0.0/16"]
    assert made.resolve == () and guest.edge.steers == ()


def test_a_discipline_that_was_there_stays() -> None:
    for dataplane in ("mirror", "macvtap"):
        made = plan(slash32(links=(LO, changed(ETH0, filters="clsact"))), dataplane=dataplane)
        words = [operation.describe() for operation in made.operations]
        assert "let eth0 carry filters" not in words
        assert any(isinstance(operation, DetachProgram) for operation in made.inverses)


def test_tap_options_reach_the_tap() -> None:
    options = TapOptions(by_name=True, persistent=True, owner=65534, group=100, vnet_hdr=True)
    for dataplane in ("bridge", "mirror"):
        (tap,) = plan(subnet(), tap=options, dataplane=dataplane).taps
        assert isinstance(tap, CreateTap)
        assert (tap.persistent, tap.owner, tap.group, tap.vnet_hdr) == (True, 65534, 100, True)
    with pytest.raises(NetworkFault, match=r"attaches its taps by name.*choose the dataplane bridge or mirror"):
        plan(subnet(), tap=options, dataplane="macvtap")
    # One that is sent a descriptor takes either device.
    assert plan(subnet(), tap=TapOptions(persistent=True), dataplane="macvtap").taps


def test_ipv6_is_off_before_anything_comes_up() -> None:
    words = [operation.describe() for operation in plan(subnet(), dataplane="bridge").operations]
    off = [f"set net/ipv6/conf/{name}/disable_ipv6 to 1" for name in ("tap0", "br0", "eth0")]
    assert all(words.index(word) < words.index("make eth0 a port of br0") for word in off)
    none = plan(subnet(sysctls={}))
    assert not any(isinstance(operation, SetSysctl) for operation in none.operations)


def test_a_connected_route_that_a_plugin_took_away_stays_away() -> None:
    layout = subnet(
        "10.89.0.18/24",
        routes=(
            route("default", "10.89.0.1"),
            route("10.89.0.0/24", "10.89.0.1", source="10.89.0.18"),
            route("10.89.0.1/32"),
        ),
    )
    # Putting the address back makes the kernel put the connected route back, which the plugin had removed.
    words = [operation.describe() for operation in plan(layout).inverses]
    assert words.index("remove route 10.89.0.0/24 from eth0") == words.index("add address 10.89.0.18/24 to eth0") + 1


REFUSALS: dict[str, tuple[Layout, str]] = {
    "down": (subnet(links=(LO, changed(ETH0, flags=0))), "is down"),
    "a port already": (subnet(links=(LO, changed(ETH0, master=7))), "already a port"),
    "no Ethernet": (subnet(links=(LO, changed(ETH0, hardware=778))), "not Ethernet"),
    "no ARP": (subnet(links=(LO, changed(ETH0, flags=rt.IFF_UP | rt.IFF_NOARP))), "not Ethernet"),
    "netkit in L3 mode": (
        subnet(links=(LO, changed(ETH0, kind="netkit", flags=rt.IFF_UP | rt.IFF_NOARP))),
        "netkit in its L3 mode.*veth, or netkit in its L2 mode",
    ),
    "ipvlan in l3s mode": (subnet(links=(LO, changed(ETH0, kind="ipvlan", mode="l3s"))), "l3s.*use ipvlan in mode l2"),
    "already plumbed": (
        subnet(links=(LO, changed(ETH0, alias=f"{MARK}other"))),
        "already plumbed for sandbox other; a pod has one address, so one unikernel",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_why(name: str) -> None:
    layout, reason = REFUSALS[name]
    with pytest.raises(NetworkFault, match=reason):
        plan(layout)


def test_unknown_dataplane() -> None:
    with pytest.raises(InvalidRequest, match="no dataplane 'carrier-pigeon'; choose one of auto, bridge"):
        plan(subnet(), dataplane="carrier-pigeon")


def test_unknown_interface() -> None:
    with pytest.raises(NetworkFault, match=r"no net7, only lo, eth0; .*io\.unikernel\.network=none"):
        plan(subnet(), interfaces=("net7",))


fourth = st.integers(0x01000001, 0xDFFFFFFE).map(IPv4Address)
sixth = st.integers(0x20010DB8 << 96, (0x20010DB9 << 96) - 1).map(IPv6Address)
states = st.sampled_from([rt.NUD_PERMANENT, rt.NUD_REACHABLE, rt.NUD_FAILED])


@st.composite
def families(draw: st.DrawFn, version: int) -> tuple[list[Any], list[Any], list[Neighbour]]:
    """One family's address, routes and neighbours: any prefix, gateway on the link or off it, connected route or none,
    static routes by any next hop, routes that refuse, more on the link than the prefix."""
    addresses: st.SearchStrategy[Any] = fourth if version == 4 else sixth
    shortest, longest, off = (8, 32, "169.254.1.1") if version == 4 else (48, 128, "fe80::1")
    own = draw(addresses)
    length = draw(st.integers(shortest, longest))
    network = ip_network((own, length), strict=False)
    kind = type(own)
    inside = st.integers(int(network.network_address), int(network.broadcast_address)).map(kind)
    gateways = st.one_of(inside, addresses, st.just(kind(off))).filter(lambda gateway: gateway != own)
    gateway = draw(gateways)
    found = []
    if draw(st.integers(0, 3)):
        default = "default" if version == 4 else "default6"
        found.append(route(default, str(gateway), mtu=draw(st.sampled_from([0, 1280, 9000]))))
    if draw(st.booleans()):
        found.append(connected(f"{own}/{length}"))
    if draw(st.booleans()):
        found.append(route(f"{gateway}/{longest}"))
    if draw(st.booleans()):
        found.append(route(str(network), str(gateway), source=str(own)))
    destinations = st.tuples(addresses, st.integers(shortest, longest)).map(lambda pair: ip_network(pair, strict=False))
    for destination in draw(st.lists(destinations, max_size=3)):
        if draw(st.booleans()):
            found.append(route(str(destination), str(draw(gateways)), metric=draw(st.integers(0, 3))))
        else:
            found.append(route(str(destination), kind=draw(st.sampled_from(["blackhole", "unicast"]))))
    entries = [pinned(str(gateway), state=draw(states))] if draw(st.booleans()) else []
    return [address(f"{own}/{length}")], found, entries


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    parts = [draw(families(version)) for version in draw(st.sampled_from([(4,), (6,), (4, 6)]))]
    addresses = [item for part in parts for item in part[0]]
    routes = [item for part in parts for item in part[1]]
    entries = [item for part in parts for item in part[2]]
    return Layout(
        links=(LO, changed(ETH0, mtu=draw(st.integers(1280, 9001)), filters=draw(st.sampled_from(["", "clsact"])))),
        addresses=(*addresses, address("fe80::5/64", scope=253)),
        routes=tuple(routes),
        neighbours=tuple(entries),
        sysctls=draw(st.sampled_from([SETTINGS, {}])),
    )


@given(layouts(), st.sampled_from(["auto", *DATAPLANES]))
def test_whatever_the_layout(layout: Layout, dataplane: str) -> None:
    try:
        made = plan(layout, dataplane=dataplane)
    except NetworkFault as fault:
        assert "without a gateway" in str(fault), fault
        return
    (guest,) = made.guest
    if guest.address is not None and guest.gateway is not None:
        network = guest.address.network
        edges = (network.network_address, network.broadcast_address)
        assert guest.gateway in network and guest.gateway not in edges and guest.gateway != guest.address.ip
        assert guest.address.ip not in edges and network.prefixlen <= 30
    if guest.address6 is not None and guest.gateway6 is not None:
        assert guest.gateway6 != guest.address6.ip
        assert guest.gateway6.is_link_local or guest.gateway6 in guest.address6.network
    assert guest.mtu <= layout.links[1].mtu
    assert made == plan(layout, dataplane=dataplane), "two runs must agree"
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made
    assert msgspec.json.decode(msgspec.json.encode(layout), type=Layout) == layout
    for step in made.steps:
        assert bool(step.undo) != bool(step.lapses), "each step is undone or lapses with a device"
        if isinstance(step.do, CreateTap | CreateBridge | CreateMacvtap):
            assert step.undo == (DelLink(link=step.do.link),)
    # Everything refers to devices that exist or were made before.
    known = {link.index for link in layout.links}
    for operation in made.operations:
        if isinstance(operation, CreateTap | CreateBridge | CreateMacvtap):
            known.add(operation.index)
        assert getattr(operation, "index", 2) in known
    for operation in (*made.operations, *made.inverses):
        assert operation.describe()
        if isinstance(operation, AttachProgram):
            assert written(operation).code() and operation.encode_with(9)
        elif isinstance(operation, NetlinkOperation):
            assert operation.encode()


def pods_way(layout: Layout, target: Any) -> str:
    """What the pod's own stack would do (ip-route(8)): the longest network, then the lowest metric, then the first."""
    fitting = [each for each in layout.routes if each.version == target.version and target in each.network()]
    best = min(fitting, key=lambda each: (-each.network().prefixlen, each.metric), default=None)
    if best is None:
        return "nowhere"
    return "nowhere" if best.kind == "blackhole" else best.gateway or str(target)


def guests_way(made: Plan, guest: GuestInterface, target: Any) -> str:
    """What becomes of a guest's packet: by its own simple rules, then by the programs' answers and steers."""
    programs = (op for op in made.operations if isinstance(op, AttachProgram) and op.side == "guest")
    program = next(programs, None)
    own, gateway = (guest.address, guest.gateway) if target.version == 4 else (guest.address6, guest.gateway6)
    assert own is not None
    asked = target if target in own.network or (target.version == 6 and target.is_link_local) else gateway
    if program is None or asked is None:
        return str(asked or "nowhere")
    fitting = [answer for answer in program.edge.answers if asked in ip_network(answer.network)]
    if not fitting:
        return str(asked)
    answer = max(fitting, key=lambda each: ip_network(each.network).prefixlen)
    if answer.mac != program.edge.router:
        return str(asked)
    steers = [steer for steer in program.edge.steers if target in ip_network(steer.network)]
    steer = max(steers, key=lambda each: ip_network(each.network).prefixlen)
    return "nowhere" if steer.hop is None else program.edge.hops[steer.hop].address


@given(layouts(), st.data())
def test_a_guests_packet_goes_where_the_pods_would(layout: Layout, data: st.DataObject) -> None:
    try:
        made = plan(layout)
    except NetworkFault:
        assume(False)
    (guest,) = made.guest
    for own, gateway in ((guest.address, guest.gateway), (guest.address6, guest.gateway6)):
        if own is None:
            continue
        routes = [each for each in layout.routes if each.version == own.version]
        assume(routes)
        near = st.sampled_from(routes).map(lambda each: each.network().network_address)
        target: Any = data.draw(st.one_of(near, near.map(lambda base: base + 1), fourth if own.version == 4 else sixth))
        network = own.network
        assume(target not in (own.ip, gateway))
        if own.version == 4:
            assume(target not in (network.network_address, network.broadcast_address))
        assume(target.version == 4 or not target.is_link_local)
        wanted, got = pods_way(layout, ip_address(target)), guests_way(made, guest, ip_address(target))
        # What is on the pod's link but not in what the guest can be told goes to its router, as the notes say.
        assert got == wanted or (wanted == str(target) and got != "nowhere"), (str(target), wanted, got, guest)


def test_devices_go_last_when_undoing() -> None:
    for dataplane, devices in (("bridge", 2), ("mirror", 1), ("macvtap", 1)):
        kinds = [isinstance(operation, DelLink) for operation in plan(subnet(), dataplane=dataplane).inverses]
        assert kinds == sorted(kinds) and sum(kinds) == devices


def test_description() -> None:
    text = as_text(plan(slash32(), dataplane="bridge"))
    assert "  address  10.1.2.3/29\n  gateway  10.1.2.1\n  MAC      02:00:5e:10:00:02\n  MTU      1500\n" in text
    assert "1. set net/ipv6/conf/eth0/addr_gen_mode to 1\n" in text
    assert "undone by: set net/ipv6/conf/eth0/addr_gen_mode to 0" in text
    assert "at eth0's ingress: follow 169.254.1.1" in text
    document = json.loads(as_json(plan(slash32(), dataplane="bridge")))
    guest = document["guest"][0]
    assert {
        key: guest[key] for key in ("name", "dataplane", "tap", "mac", "mtu", "address", "gateway", "address6")
    } == {
        "name": "eth0",
        "dataplane": "bridge",
        "tap": "tap0",
        "mac": MAC,
        "mtu": 1500,
        "address": "10.1.2.3/29",
        "gateway": "10.1.2.1",
        "address6": None,
    }
    assert guest["next_hop"] == "169.254.1.1" and ip_interface(guest["address"]).version == 4
    assert all(entry["inverses"] or entry["lapses"] for entry in document["operations"])
