"""The programs at a NIC's edge, written for the kernel's classifier (tc-bpf(8)). Pure: an `Edge` becomes code.

`guest_side` sees what the guest sends: it answers ARP requests and neighbour solicitations for the virtual router,
gives what the guest sends there the real next hop's MAC, cuts up or sends back what the wire cannot carry, and lowers
the segment size that TCP offers. `wire_side` sees what comes from the wire: it follows the next hops' MACs and lowers
the segment size. Both then send the frame on by redirecting it, where the dataplane wants that, or let it pass.

Every time the guest asks for its gateway, which it does for as long as it speaks, the real next hop is asked too, in
the guest's name; the answer comes by the wire's side. So a next hop that got another MAC is found again with nobody
watching.
"""

from __future__ import annotations

from shim.network.programs.answering import OWN_QUESTION, answer_arp, answer_solicitation
from shim.network.programs.assembly import Assembler
from shim.network.programs.edge import Edge
from shim.network.programs.fitting import begin_rest, fit4, fit6
from shim.network.programs.frame import ARP, IPV4, IPV6
from shim.network.programs.segments import lower4, lower6
from shim.network.programs.steering import (
    follow_arp,
    follow_discovery,
    followed,
    hop_values,
    pass_replies_on,
    stand_in,
    steer,
    steers_of,
    write_hop,
)
from shim.network.programs.writer import CONTEXT, MARK, R1, Path, Writer

__all__ = ["TURN_ROUND", "Path", "guest_side", "hop_values", "wire_side"]

#: Frames that a process in the pod's namespace sends with this mark (SO_MARK) are turned round to the guest, where the
#: dataplane gives it no other way to speak to the guest.
TURN_ROUND = 0x554B


def guest_side(edge: Edge, path: Path) -> Assembler:
    """For frames from the guest; `edge` has its next hops' MACs in the map, in their order."""
    writer = Writer(path)
    code = writer.code
    if path.turn_round:
        _look_at_mark(writer)
    if edge.mtu:
        begin_rest(writer, edge.mtu)
    arp = any("." in answer.network for answer in edge.answers)
    discovery = any(":" in answer.network for answer in edge.answers)
    fourth = bool(edge.mtu) or bool(steers_of(edge, "."))
    sixth = bool(edge.mtu) or discovery or bool(steers_of(edge, ":"))
    writer.dispatch(
        {kind: label for kind, label, on in ((ARP, "arp", arp), (IPV4, "ipv4", fourth), (IPV6, "ipv6", sixth)) if on}
    )
    then = {4: "ipv4.fit", 6: "ipv6.fit"} if edge.mtu else {4: "onward", 6: "onward"}
    hidden = stand_in(edge)
    if arp:
        answer_arp(writer, edge, "arp.answer" if hidden else "onward")
    if hidden:
        pass_replies_on(writer, edge)
    if fourth:
        code.label("ipv4")
        steer(writer, edge, ".", then[4])
    if sixth:
        code.label("ipv6")
        if discovery:
            answer_solicitation(writer, edge)
        steer(writer, edge, ":", then[6])
    write_hop(writer, edge, then)
    if edge.mtu:
        fit4(writer, edge.mtu, "ipv4.lower")
        fit6(writer, edge.mtu, "ipv6.lower")
        _lower(writer, edge.mtu)
    return writer.finish()


def wire_side(edge: Edge, path: Path) -> Assembler:
    """For frames from the wire."""
    writer = Writer(path)
    code = writer.code
    arp, sixth = bool(followed(edge, ".") or stand_in(edge)), followed(edge, ":")
    then = {IPV4: "ipv4.lower", IPV6: "ipv6.lower"} if edge.mtu else {}
    if arp:
        then[ARP] = "arp"
    if sixth:
        then[IPV6] = "ipv6"
    writer.dispatch(then)
    if arp:
        follow_arp(writer, edge)
    if sixth:
        code.label("ipv6")
        follow_discovery(writer, sixth)
        code.jump("ipv6.lower" if edge.mtu else "onward")
    if edge.mtu:
        _lower(writer, edge.mtu)
    return writer.finish()


def _look_at_mark(writer: Writer) -> None:
    """Where the guest's frames and the namespace's own take the same way, as they do in macvtap."""
    code = writer.code
    ours, others = code.fresh("ours"), code.fresh("others")
    code.load(4, R1, CONTEXT, MARK)
    code.jump_if(R1, "==", TURN_ROUND, ours)
    code.jump_if(R1, "!=", OWN_QUESTION, others)
    writer.leave_alone()
    code.label(ours)
    writer.to_guest()
    code.label(others)


def _lower(writer: Writer, mtu: int) -> None:
    writer.code.label("ipv4.lower")
    lower4(writer, mtu)
    writer.code.label("ipv6.lower")
    lower6(writer, mtu)
