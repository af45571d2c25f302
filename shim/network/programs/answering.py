"""Answering the guest's questions for addresses that the virtual router, or nobody else, stands for."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from shim.network.programs.assembly import as_loaded
from shim.network.programs.edge import Answer, Edge
from shim.network.programs.frame import (
    ADVERTISEMENT,
    ARP,
    ARP_LENGTH,
    ARP_OPERATION,
    ARP_REPLY,
    ARP_REQUEST,
    ARP_SENDER,
    ARP_SENDER_MAC,
    ARP_TARGET,
    ARP_TARGET_MAC,
    ETHERNET,
    ICMP6,
    IPV6_DESTINATION,
    IPV6_HOPS,
    IPV6_NEXT,
    IPV6_PAYLOAD,
    IPV6_SOURCE,
    ND_LENGTH,
    ND_TARGET,
    ND_TYPE,
    ND_WITH_OPTION,
    PROTOCOL,
    SOLICITATION,
    SOLICITED_OVERRIDE,
    SOURCE_MAC,
    TARGET_LINK_ADDRESS,
    mac_bytes,
)
from shim.network.programs.writer import FP, FRAME, R1, R7, SCRATCH, SMALL, Writer

#: What the guest's side itself sends with a clone, and must not look at again.
OWN_QUESTION = 0x554C


def answer_arp(writer: Writer, edge: Edge, otherwise: str) -> None:
    """At the label `arp`: requests that ask for an answered address become replies; what is no request goes on at
    `otherwise`, the copy holding all of it."""
    code = writer.code
    code.label("arp")
    writer.load(0, ARP_LENGTH)
    writer.unless_equal(ARP_OPERATION, ARP_REQUEST, otherwise)
    code.load(4, R1, FP, FRAME + ARP_SENDER)
    code.jump_if(R1, "==", 0, "onward")  # the guest asks whether anybody has the address it is about to take
    # The target's address is not aligned to its size, which loading it at once asks for.
    writer.copy(SMALL, FRAME + ARP_TARGET, 4)
    code.load(4, R7, FP, SMALL)
    for own in edge.own:
        if "." in own:
            code.jump_if(R7, "==", as_loaded(ip_address(own).packed), "onward")
    for answer in sorted(_answers(edge, "."), key=lambda each: -ip_network(each.network).prefixlen):
        following = code.fresh("answer")
        network = ip_network(answer.network)
        code.set(R1, R7)
        code.mask32(R1, as_loaded(network.netmask.packed))
        code.jump_if(R1, "!=", as_loaded(network.network_address.packed), following)
        writer.put(FRAME + SOURCE_MAC, mac_bytes(answer.mac))
        code.jump("arp.reply")
        code.label(following)
    code.jump("onward")

    code.label("arp.reply")
    _ask_next_hops(writer, edge)
    writer.copy(FRAME, FRAME + ARP_SENDER_MAC, 6)
    writer.put(FRAME + PROTOCOL, ARP)
    writer.put(FRAME + ARP_OPERATION, ARP_REPLY)
    writer.copy(FRAME + ARP_TARGET_MAC, FRAME + ARP_SENDER_MAC, 6)
    writer.copy(FRAME + ARP_SENDER_MAC, FRAME + SOURCE_MAC, 6)
    # Sender and target change places; the target is still in a register.
    writer.copy(FRAME + ARP_TARGET, FRAME + ARP_SENDER, 4)
    code.store(4, FP, FRAME + ARP_SENDER, R7)
    writer.write(0, FRAME, ARP_LENGTH)
    writer.to_guest()


def _ask_next_hops(writer: Writer, edge: Edge) -> None:
    """Send the guest's own question out as one for each real next hop that ARP can ask for."""
    hops = [hop for hop in edge.hops if not hop.pinned and "." in hop.address]
    if not hops:
        return
    writer.put(SMALL, b"\xff" * 6)
    writer.write(0, SMALL, 6)
    for hop in hops:
        writer.put(SMALL, ip_address(hop.address).packed)
        writer.write(ARP_TARGET, SMALL, 4)
        writer.redirect_clone(writer.path.wire, inward=False, mark=OWN_QUESTION)


def answer_solicitation(writer: Writer, edge: Edge) -> None:
    """IPv6 packets that ask for an answered address become advertisements; goes on behind itself with the others."""
    code = writer.code
    other = code.fresh("ipv6.other")
    writer.load(0, ND_LENGTH, other)
    code.load(1, R1, FP, FRAME + IPV6_NEXT)
    code.jump_if(R1, "!=", ICMP6, other)
    code.load(1, R1, FP, FRAME + ND_TYPE)
    code.jump_if(R1, "!=", SOLICITATION, other)
    code.load(2, R1, FP, FRAME + IPV6_SOURCE)
    code.jump_if(R1, "==", 0, other)  # from the unspecified address: duplicate address detection
    for answer in _answers(edge, ":"):
        following = code.fresh("answer")
        writer.unless_equal(ND_TARGET, ip_network(answer.network).network_address.packed, following)
        # The frame keeps the MAC it came from, to which the answer goes; the copy has the answer's.
        writer.put(FRAME + SOURCE_MAC, mac_bytes(answer.mac))
        code.jump("nd.reply")
        code.label(following)
    code.jump(other)

    code.label("nd.reply")
    # What is summed up: both addresses, length and protocol, and the message, which has one option.
    message = ND_WITH_OPTION - ND_TYPE
    writer.copy(SCRATCH, FRAME + ND_TARGET, 16)
    writer.copy(SCRATCH + 16, FRAME + IPV6_SOURCE, 16)
    writer.put(SCRATCH + 32, message.to_bytes(4, "big") + ICMP6.to_bytes(4, "big"))
    writer.put(SCRATCH + 40, bytes((ADVERTISEMENT, 0, 0, 0)) + SOLICITED_OVERRIDE)
    writer.copy(SCRATCH + 48, FRAME + ND_TARGET, 16)
    writer.put(SCRATCH + 64, bytes((TARGET_LINK_ADDRESS, 1)))
    writer.copy(SCRATCH + 66, FRAME + SOURCE_MAC, 6)
    writer.checksum(SCRATCH, 72)
    code.store(2, FP, SCRATCH + 42, R7)
    writer.copy(FRAME + IPV6_DESTINATION, FRAME + IPV6_SOURCE, 16)
    writer.copy(FRAME + IPV6_SOURCE, SCRATCH, 16)
    writer.put(FRAME + IPV6_PAYLOAD, message.to_bytes(2, "big"))
    code.store(1, FP, FRAME + IPV6_HOPS, 255)
    writer.resize(ND_WITH_OPTION)
    writer.write(IPV6_PAYLOAD, FRAME + IPV6_PAYLOAD, ND_TYPE - IPV6_PAYLOAD)
    writer.write(ND_TYPE, SCRATCH + 40, message)
    turn_macs(writer, FRAME + SOURCE_MAC)
    writer.to_guest()
    code.label(other)
    writer.load(0, ETHERNET)


def turn_macs(writer: Writer, source: int) -> None:
    """Send the frame back to where it came from; the stack has the MAC that it is then from at `source`."""
    writer.copy(SMALL, source, 6)
    writer.load(0, ETHERNET, "drop")
    writer.write(0, FRAME + SOURCE_MAC, 6)
    writer.write(SOURCE_MAC, SMALL, 6)


def _answers(edge: Edge, family: str) -> list[Answer]:
    return [answer for answer in edge.answers if family in answer.network]
