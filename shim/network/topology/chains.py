"""From what is seen to chains of elements and joints, the guest first and the node's side last. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Link, Neighbour
from shim.network.operations import AttachProgram
from shim.network.topology.model import Chain, Element, Entry, Join, Joint, Learned, Owner, Program, State
from shim.network.topology.planned import PROGRAM, Planned
from shim.network.topology.seen import ON_A_PARENT, Beyond, Filter, Seen

# NUD_* by ip-neighbour(8)'s words (net/neighbour.h; ip/ipneigh.c of iproute2).
_STATES = {
    rt.NUD_INCOMPLETE: "incomplete",
    rt.NUD_REACHABLE: "reachable",
    rt.NUD_STALE: "stale",
    rt.NUD_DELAY: "delay",
    rt.NUD_PROBE: "probe",
    rt.NUD_FAILED: "failed",
    rt.NUD_NOARP: "noarp",
    rt.NUD_PERMANENT: "permanent",
}


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a guest's taps: the monitor's program and process, and the name servers that its guest was told."""

    monitor: str = ""
    pid: int = 0
    dns: tuple[str, ...] = ()


def now(planned: Planned, seen: Seen, beyond: Beyond, holder: Holder) -> Chain:
    """One plumbed interface as it is; what the plan has and the kernel has not is missing."""
    nic = planned.nic
    link = seen.link(nic.index)
    tap = seen.link(planned.tap_index)
    elements = [_guest(planned, holder), _device(planned, seen, tap, "tap")]
    if planned.bridge:
        elements.append(_bridge(planned, seen, seen.link(planned.bridge_index)))
    elements.append(_device(planned, seen, link, "interface"))
    middle = [_port(planned, seen, tap, "tap"), _port(planned, seen, link, "interface")]
    if nic.dataplane == "mirror":
        middle = [_redirect(planned, elements)]
    elif nic.dataplane == "macvtap":
        taken = tap is not None and link is not None and tap.parent == link.index
        middle = [_joint(planned, "tap", "interface", "macvtap", "macvtap, passthru", whole=taken)]
    outside, joints = _node(nic.name, nic.mac, link, seen, beyond)
    return Chain(
        nic=nic.name,
        dataplane=nic.dataplane,
        elements=(*elements, *outside),
        joints=(_open(planned, tap), *middle, *joints),
    )


def before(planned: Planned, seen: Seen, beyond: Beyond) -> Chain:
    """The same interface as its CNI plugin left it. The node's side nobody changes: it is shown as it is, without what
    moves."""
    nic = planned.nic
    stack = Element(
        id=f"{nic.name}:stack",
        sort="stack",
        place="pod",
        owner="pod",
        name="the pod's own stack",
        routes=planned.routes,
        neighbours=tuple(Entry(address=address, mac=mac, state="permanent") for address, mac in planned.pinned),
    )
    link = seen.link(nic.index)
    interface = Element(
        id=f"{nic.name}:interface",
        sort="interface",
        place="pod",
        owner="cni",
        name=nic.name,
        kind=link.kind if link is not None else "",
        state="up",
        mac=nic.mac,
        mtu=nic.link_mtu,
        # An interface that keeps its addresses has them still.
        addresses=planned.addresses or (_addresses(seen, link) if link is not None else ()),
    )
    outside, joints = _node(nic.name, nic.mac, link, seen, beyond)
    quiet = [msgspec.structs.replace(each, state="", neighbours=(), learned=()) for each in outside]
    return Chain(
        nic=nic.name,
        dataplane="",
        elements=(stack, interface, *quiet),
        joints=(_own(nic.name), *(msgspec.structs.replace(each, whole=True) for each in joints)),
    )


def plain(link: Link, seen: Seen, beyond: Beyond) -> Chain:
    """An interface that is not plumbed, as it is."""
    stack = Element(
        id=f"{link.name}:stack",
        sort="stack",
        place="pod",
        owner="pod",
        name="the pod's own stack",
        routes=_routes(seen, link),
        neighbours=tuple(
            entry_of(each) for each in seen.layout.neighbours if each.link == link.index and each.permanent
        ),
    )
    interface = Element(
        id=f"{link.name}:interface",
        sort="interface",
        place="pod",
        owner="cni",
        addresses=_addresses(seen, link),
        programs=_programs((), seen.filters_of(link.index), {}),
        **_common(link),
    )
    outside, joints = _node(link.name, link.mac, link, seen, beyond)
    return Chain(nic=link.name, dataplane="", elements=(stack, interface, *outside), joints=(_own(link.name), *joints))


def state_of(link: Link | None) -> State:
    """An interface's, in one word."""
    if link is None:
        return "missing"
    if not link.up:
        return "down"
    return "up" if link.carrier else "no carrier"


def _guest(planned: Planned, holder: Holder) -> Element:
    nic = planned.nic
    words = () if planned.known else ("what it was told is known to the service alone",)
    return Element(
        id=f"{nic.name}:guest",
        sort="guest",
        place="guest",
        owner="guest",
        name=nic.name,
        kind=f"{holder.monitor} (pid {holder.pid})" if holder.pid else holder.monitor,
        mac=nic.mac,
        mtu=nic.mtu,
        addresses=tuple(address for address in (nic.address, nic.address6) if address),
        gateways=tuple(gateway for gateway in (nic.gateway, nic.gateway6) if gateway),
        routes=nic.routes,
        dns=holder.dns,
        next_hops=tuple(hop for hop in (nic.next_hop, nic.next_hop6) if hop),
        router=nic.virtual_mac,
        words=words,
    )


def _device(planned: Planned, seen: Seen, link: Link | None, role: str) -> Element:
    """The pod's interface, or the tap."""
    nic = planned.nic
    tap = role == "tap"
    names = {nic.index: nic.name, planned.tap_index: nic.tap}
    wanted = tuple(each for each in planned.programs if each.link == (nic.tap if tap else nic.name))
    programs = _programs(wanted, seen.filters_of(link.index) if link is not None else (), names)
    owner: Owner = "shim" if tap else "cni"
    if link is None:
        name = (nic.tap or "tap") if tap else nic.name
        return Element(
            id=f"{nic.name}:{role}", sort="tap" if tap else "interface", place="pod", owner=owner, name=name,
            state="missing", programs=programs,
        )  # fmt: skip
    settings = seen.further[link.index].tap if link.index in seen.further else None
    words: tuple[str, ...] = ()
    if settings is not None and settings.persistent:
        whose = f" by user {settings.owner}" if settings.owner is not None else ""
        words = (f"stays without whoever has it open; taken by name{whose}",)
    return Element(
        id=f"{nic.name}:{role}",
        sort="tap" if tap else "interface",
        place="pod",
        owner=owner,
        addresses=_addresses(seen, link),
        programs=programs,
        words=words,
        **_common(link),
    )


def _bridge(planned: Planned, seen: Seen, link: Link | None) -> Element:
    nic = planned.nic
    if link is None:
        return Element(
            id=f"{nic.name}:bridge", sort="bridge", place="pod", owner="shim", name=planned.bridge, state="missing"
        )
    names = {each.index: each.name for each in seen.layout.links}
    return Element(
        id=f"{nic.name}:bridge",
        sort="bridge",
        place="pod",
        owner="shim",
        addresses=_addresses(seen, link),
        learned=tuple(
            Learned(mac=each.mac, port=names.get(each.link, str(each.link)))
            for each in seen.forwarding
            if each.mac == nic.mac or each.link == planned.tap_index
        ),
        **_common(link),
    )


def _node(nic: str, mac: str, link: Link | None, seen: Seen, beyond: Beyond) -> tuple[list[Element], list[Joint]]:
    """What the interface leads to on the node, for who has that MAC. Nothing is drawn of an interface that is gone."""
    if link is None or not link.parent or link.index not in seen.further:
        return [], []
    on_parent = link.kind in ON_A_PARENT
    sort: Join = "parent" if on_parent else "veth"
    words = f"a {link.kind} on it" if on_parent else f"{link.kind} pair"
    peer = beyond.peer
    whole = link.up and peer is not None and peer.up
    joint = Joint(
        id=f"{nic}:interface-peer",
        upper=f"{nic}:interface",
        lower=f"{nic}:peer",
        sort=sort,
        words=words,
        whole=whole or peer is None,
    )
    if peer is None:
        unseen = Element(
            id=f"{nic}:peer", sort="peer", place="node", owner="node", name="out of sight",
            words=("its other end is in no namespace that the service sees",),
        )  # fmt: skip
        return [unseen], [joint]
    elements = [_on_node(nic, "peer", peer, beyond)]
    # Behind a macvlan's parent are its other children too.
    learned = tuple(
        Learned(mac=each.mac, port=beyond.ports.get(each.link, str(each.link)))
        for each in beyond.forwarding
        if each.mac == mac or (each.link == peer.index and not on_parent)
    )
    joints = [joint]
    if beyond.switch is not None:
        elements.append(msgspec.structs.replace(_on_node(nic, "switch", beyond.switch, beyond), learned=learned))
        state = f", {beyond.port.state}" if beyond.port is not None else ""
        joints.append(
            Joint(
                id=f"{nic}:peer-switch",
                upper=f"{nic}:peer",
                lower=f"{nic}:switch",
                sort="port",
                words=f"port{state}",
                whole=beyond.port is None or beyond.port.state == "forwarding",
            )
        )
    return elements, joints


def _on_node(nic: str, role: str, link: Link, beyond: Beyond) -> Element:
    return Element(
        id=f"{nic}:{role}",
        sort="peer" if role == "peer" else "switch",
        place="node",
        owner="node",
        addresses=beyond.addresses.get(link.index, ()),
        neighbours=tuple(entry_of(each) for each in beyond.neighbours if each.link == link.index),
        words=("answers ARP for others (proxy_arp)",) if role == "peer" and beyond.proxies else (),
        **_common(link),
    )


def entry_of(neighbour: Neighbour) -> Entry:
    """A neighbour entry, in words."""
    state = next((word for bit, word in _STATES.items() if neighbour.state & bit), "none")
    return Entry(address=neighbour.address, mac=neighbour.mac, state=state)


def _common(link: Link) -> dict[str, Any]:
    return {"name": link.name, "kind": link.kind, "state": state_of(link), "mac": link.mac, "mtu": link.mtu}


def _addresses(seen: Seen, link: Link) -> tuple[str, ...]:
    found = (str(each) for each in seen.layout.addresses if each.link == link.index)
    return tuple(sorted(found, key=lambda text: ":" in text))


def _routes(seen: Seen, link: Link) -> tuple[str, ...]:
    """Those that the pod's own stack has by the interface, those by which everything goes first."""
    found: list[tuple[bool, str]] = []
    for route in seen.layout.routes:
        if not route.through(link.index) or route.kind != "unicast" or route.destination == "fe80::/64":
            continue
        by_kernel = route.protocol == rt.RTPROT_KERNEL
        if by_kernel and route.network().prefixlen == route.network().max_prefixlen:
            continue  # an address of its own
        # Of what the kernel makes by itself, all but the network is its habit.
        found.append((not route.default, route.destination if by_kernel else str(route)))
    return tuple(dict.fromkeys(text for _, text in sorted(found, key=lambda each: (each[0], ":" in each[1]))))


def _programs(
    wanted: tuple[AttachProgram, ...], filters: tuple[Filter, ...], names: dict[int, str]
) -> tuple[Program, ...]:
    """All that are there, ours with what the plan says they do, then those that are not there."""
    expected = {(each.place, f"{PROGRAM}{each.side}"): each for each in wanted}
    there: list[Program] = []
    for each in filters:
        ours = expected.pop((each.place, each.name), None)
        there.append(
            Program(
                place=each.place,
                name=each.name or each.kind,
                owner="shim" if each.name.startswith(PROGRAM) else "unknown",
                does=_does(ours, names) if ours is not None else "",
            )
        )
    missing = (
        Program(place=place, name=name, owner="shim", does=_does(each, names), there=False)
        for (place, name), each in expected.items()
    )
    return (*there, *missing)


def _does(program: AttachProgram, names: dict[int, str]) -> str:
    onward = program.path.onward
    words = program.describe().partition(": ")[2]
    return words if onward is None else words.replace(f"interface {onward}", names.get(onward, f"interface {onward}"))


def _open(planned: Planned, tap: Link | None) -> Joint:
    words = "taken by name" if planned.persistent else "an open descriptor"
    # A tap has a carrier for as long as somebody has it open (tun_attach, __tun_detach in drivers/net/tun.c).
    held = tap is not None and (tap.kind != "tun" or not tap.up or tap.carrier)
    return _joint(planned, "guest", "tap", "descriptor", words, whole=held)


def _port(planned: Planned, seen: Seen, link: Link | None, role: str) -> Joint:
    port = seen.further[link.index].port if link is not None and link.index in seen.further else None
    joined = link is not None and port is not None and link.master == planned.bridge_index
    words = (
        "no port" if not joined or port is None else f"port, {port.state}, {'' if port.learning else 'not '}learning"
    )
    whole = joined and port is not None and port.state == "forwarding"
    ends = ("tap", "bridge") if role == "tap" else ("bridge", "interface")
    return _joint(planned, *ends, "port", words, whole=whole)


def _redirect(planned: Planned, elements: Iterable[Element]) -> Joint:
    """Both ways must be there."""
    programs = [program for element in elements for program in element.programs if program.owner == "shim"]
    whole = len(programs) >= 2 and all(program.there for program in programs)
    return _joint(planned, "tap", "interface", "redirect", "tc redirect, both ways", whole=whole)


def _joint(planned: Planned, upper: str, lower: str, sort: Join, words: str, *, whole: bool) -> Joint:
    nic = planned.nic.name
    return Joint(
        id=f"{nic}:{upper}-{lower}",
        upper=f"{nic}:{upper}",
        lower=f"{nic}:{lower}",
        sort=sort,
        words=words,
        whole=whole,
    )


def _own(nic: str) -> Joint:
    return Joint(
        id=f"{nic}:stack-interface", upper=f"{nic}:stack", lower=f"{nic}:interface", sort="stack", words="in use"
    )
