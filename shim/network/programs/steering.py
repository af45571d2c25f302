"""The real next hops: whom the virtual router's frames go to, and which MACs they have by now."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from shim.network.programs.assembly import Helper, as_loaded
from shim.network.programs.edge import Edge, Steer
from shim.network.programs.frame import (
    ADVERTISEMENT,
    ARP_LENGTH,
    ARP_SENDER,
    ARP_SENDER_MAC,
    ARP_TARGET,
    ICMP6,
    IPV4_DESTINATION,
    IPV6_DESTINATION,
    IPV6_NEXT,
    IPV6_SOURCE,
    ND_OPTION,
    ND_TARGET,
    ND_TYPE,
    ND_WITH_OPTION,
    SOLICITATION,
    SOURCE_LINK_ADDRESS,
    TARGET_LINK_ADDRESS,
    mac_bytes,
)
from shim.network.programs.writer import CONTEXT, FP, FRAME, KEY, R0, R1, R2, R3, R4, R5, R8, SMALL, VALUE, Writer


def steer(writer: Writer, edge: Edge, family: str, then: str) -> None:
    """Give what is for the virtual router to the next hop of its destination's longest network; the copy has the
    Ethernet header. `family` is "." or ":". Goes on at `then`, by `write_hop` where something is to be written."""
    code = writer.code
    steers = steers_of(edge, family)
    if not steers:
        code.jump(then)
        return
    destination, size = (IPV4_DESTINATION, 4) if family == "." else (IPV6_DESTINATION, 16)
    writer.unless_equal(0, mac_bytes(edge.router), then)
    writer.load(destination, size, then)
    code.set(R8, 4 if family == "." else 6)
    for each in sorted(steers, key=lambda each: -ip_network(each.network).prefixlen):
        following = code.fresh("steer")
        network = ip_network(each.network)
        mask, value = network.netmask.packed, network.network_address.packed
        for position in range(0, size, 2):
            part = mask[position : position + 2]
            if part == b"\0\0":
                break
            code.load(2, R1, FP, FRAME + destination + position)
            if part != b"\xff\xff":
                code.compute("and", R1, as_loaded(part))
            code.jump_if(R1, "!=", as_loaded(value[position : position + 2]), following)
        if each.hop is None:
            writer.drop()
        else:
            code.store(4, FP, KEY, each.hop)
            code.jump("hop")
        if network.prefixlen == 0:
            return  # nothing gets past it, and the kernel refuses code that nothing reaches
        code.label(following)
    code.jump(then)


def write_hop(writer: Writer, edge: Edge, then: dict[int, str]) -> None:
    """At the label `hop`: the frame is for the next hop whose number is at the key's place. Goes on at the label that
    `then` has for the family (4 or 6) in R8, else at `onward`."""
    if not any(each.hop is not None for each in edge.steers):
        return
    code = writer.code
    code.label("hop")
    code.map(R1)
    code.frame(R2, KEY)
    code.call(Helper.MAP_LOOKUP)
    code.jump_if_null(R0, "onward")
    code.set(R3, R0)
    code.set(R1, CONTEXT)
    code.set(R2, 0)
    code.set(R4, 6)
    code.set(R5, 0)
    code.call(Helper.STORE_BYTES)
    writer.drop_unless_done()
    for family, label in then.items():
        if label != "onward" and any(each.hop is not None for each in steers_of(edge, ".:"[family == 6])):
            code.jump_if(R8, "==", family, label)
    code.jump("onward")


def steers_of(edge: Edge, family: str) -> list[Steer]:
    """Those of one family, "." or ":"."""
    return [each for each in edge.steers if family in each.network]


def followed(edge: Edge, family: str) -> list[tuple[int, str]]:
    """The next hops of one family whose MACs are followed, with their numbers."""
    return [(number, hop.address) for number, hop in enumerate(edge.hops) if not hop.pinned and family in hop.address]


def stand_in(edge: Edge) -> list[tuple[int, str]]:
    """The next hops that the virtual router stands in for by their own address, with their numbers."""
    answered = [ip_network(answer.network) for answer in edge.answers if answer.mac == edge.router]
    return [
        (number, hop.address)
        for number, hop in enumerate(edge.hops)
        if "." in hop.address and any(ip_address(hop.address) in network for network in answered)
    ]


def follow_arp(writer: Writer, edge: Edge) -> None:
    """At the label `arp`: requests name their sender as replies do, and so do announcements.

    Where the virtual router has a next hop's address, the guest must not learn the real MAC from it: it would go past
    the pod's routes. So the frame then names the virtual router as its sender.
    """
    code = writer.code
    code.label("arp")
    writer.load(0, ARP_LENGTH)
    hidden, heeded = dict(stand_in(edge)), dict(followed(edge, "."))
    for number, hop in enumerate(edge.hops):
        if number not in hidden and number not in heeded:
            continue
        following = code.fresh("hop")
        writer.unless_equal(ARP_SENDER, ip_address(hop.address).packed, following)
        if number in heeded:
            _remember(writer, number, ARP_SENDER_MAC)
        if number in hidden:
            writer.put(SMALL, mac_bytes(edge.router))
            writer.write(ARP_SENDER_MAC, SMALL, 6)
        code.jump("onward")
        code.label(following)
    code.jump("onward")


def pass_replies_on(writer: Writer, edge: Edge) -> None:
    """What the guest answers to the virtual router, at the label `arp.answer`, is for the next hop that asked by it."""
    code = writer.code
    code.label("arp.answer")
    writer.unless_equal(0, mac_bytes(edge.router), "onward")
    for number, address in stand_in(edge):
        following = code.fresh("hop")
        writer.unless_equal(ARP_TARGET, ip_address(address).packed, following)
        code.set(R8, 0)
        code.store(4, FP, KEY, number)
        code.jump("hop")
        code.label(following)
    code.jump("onward")


def follow_discovery(writer: Writer, hops: Iterable[tuple[int, str]]) -> None:
    """An advertisement names its target's MAC, a solicitation its source's, in the option that comes first. Goes on
    behind itself."""
    code = writer.code
    other = code.fresh("ipv6.other")
    writer.load(0, ND_WITH_OPTION, other)
    code.load(1, R1, FP, FRAME + IPV6_NEXT)
    code.jump_if(R1, "!=", ICMP6, other)
    for number, address in hops:
        for kind, place, option in (
            (ADVERTISEMENT, ND_TARGET, TARGET_LINK_ADDRESS),
            (SOLICITATION, IPV6_SOURCE, SOURCE_LINK_ADDRESS),
        ):
            following = code.fresh("hop")
            code.load(1, R1, FP, FRAME + ND_TYPE)
            code.jump_if(R1, "!=", kind, following)
            writer.unless_equal(place, ip_address(address).packed, following)
            code.load(1, R1, FP, FRAME + ND_OPTION)
            code.jump_if(R1, "!=", option, following)
            _remember(writer, number, ND_OPTION + 2)
            code.jump(other)
            code.label(following)
    code.label(other)


def _remember(writer: Writer, number: int, place: int) -> None:
    """A next hop's MAC is at `place` of the copy; a group's address is nobody's."""
    code = writer.code
    skipped = code.fresh("skipped")
    code.load(1, R1, FP, FRAME + place)
    code.compute("and", R1, 1)
    code.jump_if(R1, "!=", 0, skipped)
    writer.copy(VALUE, FRAME + place, 6)
    code.store(2, FP, VALUE + 6, 0)
    code.store(4, FP, KEY, number)
    code.map(R1)
    code.frame(R2, KEY)
    code.frame(R3, VALUE)
    code.set(R4, 0)
    code.call(Helper.MAP_UPDATE)
    code.label(skipped)


def hop_values(edge: Edge) -> list[bytes]:
    """The map's first content: each next hop's MAC, eight bytes an element."""
    return [mac_bytes(hop.mac).ljust(8, b"\0") for hop in edge.hops]
