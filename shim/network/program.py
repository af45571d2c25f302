"""The programs at a NIC's edge, written for the kernel's classifier (tc-bpf(8)). Pure: an `Edge` becomes code.

`guest_side` sees what the guest sends: it answers ARP requests and neighbour solicitations for the virtual router,
gives what the guest sends there the real next hop's MAC, and lowers the segment size that TCP offers. `wire_side` sees
what comes from the wire: it follows the next hops' MACs and lowers the segment size. Both then send the frame on by
redirecting it, where the dataplane wants that, or let it pass.

Every time the guest asks for its gateway, which it does for as long as it speaks, the real next hop is asked too, in
the guest's name; the answer comes by the wire's side. So a next hop that got another MAC is found again with nobody
watching.

Frames are Ethernet (IEEE 802.3); ARP is RFC 826, neighbour discovery RFC 4861, IPv4 RFC 791, IPv6 RFC 8200, TCP RFC
9293. Offsets are from the start of the frame.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec

from shim.network.assembly import Assembler, Helper, Register, as_loaded
from shim.network.edge import Edge, Steer

R0, R1, R2, R3, R4, R5 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R4, Register.R5
CONTEXT, R7, R8, R9, FP = Register.R6, Register.R7, Register.R8, Register.R9, Register.FP

#: Frames that a process in the pod's namespace sends with this mark (SO_MARK) are turned round to the guest, where the
#: dataplane gives it no other way to speak to the guest.
TURN_ROUND = 0x554B
#: What the guest's side itself sends with a clone, and must not look at again.
_OWN_QUESTION = 0x554C

_PASS = -1  # TC_ACT_UNSPEC (linux/pkt_cls.h): the frame goes on its way
_DROP = 2  # TC_ACT_SHOT
_INGRESS = 1  # BPF_F_INGRESS (linux/bpf.h)
_MARK = 8  # offset of `mark` in struct __sk_buff (linux/bpf.h)

_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ETHERNET = 14
# ARP over Ethernet and IPv4: operation, sender's MAC and address, target's MAC and address; the whole frame's length.
_OPERATION, _SENDER_MAC, _SENDER, _TARGET_MAC, _TARGET, _ARP_LENGTH = 20, 22, 28, 32, 38, 42
_REQUEST, _REPLY = b"\x00\x01", b"\x00\x02"
_IPV4_DESTINATION = 30
# IPv6: payload length, next header, hop limit, addresses.
_PAYLOAD_LENGTH, _NEXT_HEADER, _HOP_LIMIT, _IPV6_SOURCE, _IPV6_DESTINATION = 18, 20, 21, 22, 38
# Neighbour discovery over IPv6: type, checksum, flags, target, the first option.
_TYPE, _CHECKSUM, _FLAGS, _ND_TARGET, _ND_OPTION = 54, 56, 58, 62, 78
_ND_LENGTH, _ND_WITH_OPTION = 78, 86
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_SOLICITED_OVERRIDE = b"\x60\x00\x00\x00"
_ICMP6, _TCP = 58, 6
_TCP_CHECKSUM = 16
_SYN = 0x02
_MSS_OPTION = 2
#: A TCP header has at most 40 bytes of options; real ones put the segment size first or nearly so.
_OPTIONS = 12

# The frame's copy on the stack, the key and value of a map's element, small things.
_FRAME = -96
_SCRATCH = -184  # a pseudo-header and a message to be summed, 72 bytes
_KEY = -192
_VALUE = -200
_SMALL = -208


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """Where frames go, by interface index.

    `onward`: every frame is redirected there; None lets it pass. `answer`: where an answer reaches the guest;
    `inward` says that it is put in as if received there. `wire`: the pod's interface, where next hops are asked.
    `turn_round`: frames marked so are sent to the guest by the same way as answers.
    """

    onward: int | None = None
    answer: int = 0
    inward: bool = False
    wire: int = 0
    turn_round: bool = False


def guest_side(edge: Edge, path: Path) -> Assembler:
    """For frames from the guest; `edge` has its next hops' MACs in the map, in their order."""
    return _GuestSide(edge, path).assembled()


def wire_side(edge: Edge, path: Path) -> Assembler:
    """For frames from the wire."""
    return _WireSide(edge, path).assembled()


class _Side:
    """What both sides have in common: loading, going on, lowering the segment size."""

    def __init__(self, edge: Edge, path: Path) -> None:
        self._edge, self._path = edge, path
        self._code = Assembler()

    def _begin(self) -> None:
        self._code.set(CONTEXT, R1)

    def _dispatch(self, arp: bool, ipv4: bool, ipv6: bool) -> None:
        code = self._code
        if arp or ipv4 or ipv6:
            self._load(0, _ETHERNET)
            code.load(2, R7, FP, _FRAME + 12)
            for wanted, kind, label in ((arp, _ARP, "arp"), (ipv4, _IPV4, "ipv4"), (ipv6, _IPV6, "ipv6")):
                if wanted:
                    code.jump_if(R7, "==", as_loaded(kind), label)
        code.jump("onward")

    def _finish(self) -> None:
        code = self._code
        code.label("onward")
        if self._path.onward is None:
            code.exit(_PASS)
        else:
            self._redirect(self._path.onward, 0)

    def _redirect(self, index: int, flags: int) -> None:
        self._code.set(R1, index)
        self._code.set(R2, flags)
        self._code.call(Helper.REDIRECT)
        self._code.exit()

    def _load(self, offset: int | Register, length: int, otherwise: str = "onward") -> None:
        """Copy the frame's bytes from `offset` on to the same place of the stack's copy (a register's: its start)."""
        code = self._code
        code.set(R1, CONTEXT)
        code.set(R2, offset)
        code.frame(R3, _FRAME + (offset if not isinstance(offset, Register) else 0))
        code.set(R4, length)
        code.call(Helper.LOAD_BYTES)
        code.jump_if(R0, "!=", 0, otherwise)

    def _write(self, offset: int | Register, place: int, length: int) -> None:
        """Overwrite the frame's bytes with the stack's from `place` on."""
        code = self._code
        code.set(R1, CONTEXT)
        code.set(R2, offset)
        code.frame(R3, place)
        code.set(R4, length)
        code.set(R5, 0)
        code.call(Helper.STORE_BYTES)
        code.jump_if(R0, "!=", 0, "drop")
        self._droppable = True

    _droppable = False

    def _drop(self) -> None:
        if self._droppable:
            self._code.label("drop")
            self._code.exit(_DROP)

    def _put(self, offset: int, value: bytes) -> None:
        """Constants into the stack's copy, by halves of words: no place here is aligned to more."""
        for position in range(0, len(value), 2):
            self._code.store(2, FP, _FRAME + offset + position, as_loaded(value[position : position + 2]))

    def _copy(self, target: int, source: int, length: int) -> None:
        for position in range(0, length, 2):
            self._code.load(2, R1, FP, _FRAME + source + position)
            self._code.store(2, FP, _FRAME + target + position, R1)

    def _unless_equal(self, offset: int, value: bytes, label: str) -> None:
        """Go to `label` unless the stack's copy has `value` at `offset`."""
        for position in range(0, len(value), 2):
            self._code.load(2, R1, FP, _FRAME + offset + position)
            self._code.jump_if(R1, "!=", as_loaded(value[position : position + 2]), label)

    def _lower_segment_size(self) -> None:
        """Labels `mss4` and `mss6`: packets of either family that need nothing else."""
        code, edge = self._code, self._edge
        if edge.mss4:
            code.label("mss4")
            self._load(_ETHERNET, 20)
            code.load(1, R1, FP, _FRAME + 23)
            code.jump_if(R1, "!=", _TCP, "onward")
            code.load(2, R1, FP, _FRAME + 20)
            code.jump_if(R1, "&", as_loaded(b"\x1f\xff"), "onward")  # not a first fragment
            code.load(1, R7, FP, _FRAME + _ETHERNET)
            code.compute("and", R7, 0x0F)
            code.compute("lsh", R7, 2)
            code.compute("add", R7, _ETHERNET)
            self._lower_in_options(edge.mss4)
        if edge.mss6:
            code.label("mss6")
            self._load(_ETHERNET, 40)
            code.load(1, R1, FP, _FRAME + _NEXT_HEADER)
            code.jump_if(R1, "!=", _TCP, "onward")
            code.set(R7, _ETHERNET + 40)
            self._lower_in_options(edge.mss6)

    def _lower_in_options(self, most: int) -> None:
        """R7 is where TCP begins, R8 where its options end, R9 where the next one begins."""
        code = self._code
        found = code.fresh("found")
        self._load(R7, 20)
        code.load(1, R1, FP, _FRAME + 13)
        code.compute("and", R1, _SYN)
        code.jump_if(R1, "==", 0, "onward")
        code.load(1, R8, FP, _FRAME + 12)
        code.compute("rsh", R8, 4)
        code.compute("lsh", R8, 2)
        code.compute("add", R8, R7)
        code.set(R9, R7)
        code.compute("add", R9, 20)
        for _ in range(_OPTIONS):
            following, sized = code.fresh("option"), code.fresh("sized")
            code.jump_if(R9, ">=", R8, "onward")
            self._load(R9, 4)  # the option looked for has four bytes, so where fewer are left it is not
            code.load(1, R1, FP, _FRAME)
            code.jump_if(R1, "==", 0, "onward")  # end of options
            code.jump_if(R1, "==", _MSS_OPTION, found)
            code.jump_if(R1, "!=", 1, sized)
            code.compute("add", R9, 1)  # no operation: one byte
            code.jump(following)
            code.label(sized)
            code.load(1, R1, FP, _FRAME + 1)
            code.jump_if(R1, "<", 2, "onward")
            code.compute("add", R9, R1)
            code.label(following)
        code.jump("onward")

        code.label(found)
        code.load(2, R8, FP, _FRAME + 2)
        code.set(R1, R8)
        code.network_order(R1, 16)
        code.jump_if(R1, "<=", most, "onward")
        lowered = most.to_bytes(2, "big")
        code.store(2, FP, _SMALL, as_loaded(lowered))
        code.set(R3, R8)
        code.set(R4, as_loaded(lowered))
        even = code.fresh("even")
        code.set(R1, R9)
        code.compute("sub", R1, R7)
        code.compute("and", R1, 1)
        code.jump_if(R1, "==", 0, even)
        # Behind an odd number of bytes the field lies across two words of the sum: each byte counts as the other.
        for register in (R3, R4):
            code.set(R1, register)
            code.compute("rsh", R1, 8)
            code.compute("lsh", register, 8)
            code.compute("or", register, R1)
            code.mask32(register, 0xFFFF)
        code.label(even)
        code.set(R1, CONTEXT)
        code.set(R2, R7)
        code.compute("add", R2, _TCP_CHECKSUM)
        code.set(R5, 2)
        code.call(Helper.L4_CHECKSUM_REPLACE)
        code.compute("add", R9, 2)
        self._write(R9, _SMALL, 2)
        code.jump("onward")


class _GuestSide(_Side):
    def assembled(self) -> Assembler:
        edge = self._edge
        arp = any("." in answer.network for answer in edge.answers)
        discovery = any(":" in answer.network for answer in edge.answers)
        steers4 = [steer for steer in edge.steers if "." in steer.network]
        steers6 = [steer for steer in edge.steers if ":" in steer.network]
        self._begin()
        self._look_at_mark()
        self._dispatch(arp, bool(steers4) or bool(edge.mss4), discovery or bool(steers6) or bool(edge.mss6))
        if arp:
            self._code.label("arp")
            self._answer_arp()
        if steers4 or edge.mss4:
            self._code.label("ipv4")
            self._steer(steers4, _IPV4_DESTINATION, "mss4" if edge.mss4 else "onward")
        if discovery or steers6 or edge.mss6:
            self._code.label("ipv6")
            if discovery:
                self._answer_solicitation()
            self._steer(steers6, _IPV6_DESTINATION, "mss6" if edge.mss6 else "onward")
        self._lower_segment_size()
        if steers4 or steers6:
            self._write_hop()
        self._finish()
        self._drop()
        return self._code

    def _look_at_mark(self) -> None:
        """Where the guest's frames and the namespace's own take the same way, as they do in macvtap."""
        if not self._path.turn_round:
            return
        code = self._code
        ours, others = code.fresh("ours"), code.fresh("others")
        code.load(4, R1, CONTEXT, _MARK)
        code.jump_if(R1, "==", TURN_ROUND, ours)
        code.jump_if(R1, "!=", _OWN_QUESTION, others)
        code.exit(_PASS)
        code.label(ours)
        self._answer_to_guest()
        code.label(others)

    def _answer_to_guest(self) -> None:
        self._redirect(self._path.answer, _INGRESS if self._path.inward else 0)

    def _answer_arp(self) -> None:
        code, edge = self._code, self._edge
        self._load(0, _ARP_LENGTH)
        self._unless_equal(_OPERATION, _REQUEST, "onward")
        code.load(4, R1, FP, _FRAME + _SENDER)
        code.jump_if(R1, "==", 0, "onward")  # the guest asks whether anybody has the address it is about to take
        # The target's address is not aligned to its size, which loading it at once asks for.
        for position in (0, 2):
            code.load(2, R1, FP, _FRAME + _TARGET + position)
            code.store(2, FP, _SMALL + position, R1)
        code.load(4, R7, FP, _SMALL)
        for own in edge.own:
            if "." in own:
                code.jump_if(R7, "==", as_loaded(ip_address(own).packed), "onward")
        answers = sorted(
            (answer for answer in edge.answers if "." in answer.network), key=lambda each: -_length(each.network)
        )
        for answer in answers:
            following = code.fresh("answer")
            network = ip_network(answer.network)
            code.set(R1, R7)
            code.mask32(R1, as_loaded(network.netmask.packed))
            code.jump_if(R1, "!=", as_loaded(network.network_address.packed), following)
            self._put(_ETHERNET - 8, _mac(answer.mac))
            code.jump("arp.reply")
            code.label(following)
        code.jump("onward")
        code.label("arp.reply")
        self._ask_next_hop()
        self._copy(0, _SENDER_MAC, 6)
        self._put(12, _ARP)
        self._put(_OPERATION, _REPLY)
        self._copy(_TARGET_MAC, _SENDER_MAC, 6)
        self._copy(_SENDER_MAC, 6, 6)
        # Sender and target change places; the target is still in a register.
        self._copy(_TARGET, _SENDER, 4)
        code.store(4, FP, _FRAME + _SENDER, R7)
        self._write(0, _FRAME, _ARP_LENGTH)
        self._answer_to_guest()

    def _ask_next_hop(self) -> None:
        """Send the guest's own question out as one for the first real next hop that ARP can ask for."""
        hop = next((hop for hop in self._edge.hops if not hop.pinned and "." in hop.address), None)
        if hop is None:
            return
        code = self._code
        for position in range(0, 6, 2):
            code.store(2, FP, _SMALL + position, 0xFFFF)
        self._write(0, _SMALL, 6)
        code.store(4, FP, _SMALL, as_loaded(ip_address(hop.address).packed))
        self._write(_TARGET, _SMALL, 4)
        if self._path.turn_round:
            code.store(4, CONTEXT, _MARK, _OWN_QUESTION)
        code.set(R1, CONTEXT)
        code.set(R2, self._path.wire)
        code.set(R3, 0)
        code.call(Helper.CLONE_REDIRECT)
        if self._path.turn_round:
            code.store(4, CONTEXT, _MARK, 0)

    def _answer_solicitation(self) -> None:
        code, edge = self._code, self._edge
        other = code.fresh("ipv6.other")
        self._load(0, _ND_LENGTH, other)
        code.load(1, R1, FP, _FRAME + _NEXT_HEADER)
        code.jump_if(R1, "!=", _ICMP6, other)
        code.load(1, R1, FP, _FRAME + _TYPE)
        code.jump_if(R1, "!=", _SOLICITATION, other)
        code.load(2, R1, FP, _FRAME + _IPV6_SOURCE)
        code.jump_if(R1, "==", 0, other)  # from the unspecified address: duplicate address detection
        for answer in edge.answers:
            if ":" not in answer.network:
                continue
            following = code.fresh("answer")
            self._unless_equal(_ND_TARGET, ip_network(answer.network).network_address.packed, following)
            self._put(6, _mac(answer.mac))
            code.jump("nd.reply")
            code.label(following)
        code.jump(other)

        code.label("nd.reply")
        for position in range(0, 16, 2):
            # From the target to who asked; in the summed copy, both, the length and the protocol come first.
            code.load(2, R1, FP, _FRAME + _IPV6_SOURCE + position)
            code.store(2, FP, _FRAME + _IPV6_DESTINATION + position, R1)
            code.store(2, FP, _SCRATCH + 16 + position, R1)
            code.load(2, R1, FP, _FRAME + _ND_TARGET + position)
            code.store(2, FP, _FRAME + _IPV6_SOURCE + position, R1)
            code.store(2, FP, _SCRATCH + position, R1)
            code.store(2, FP, _SCRATCH + 48 + position, R1)
        message = _ND_WITH_OPTION - _TYPE
        for place, value in (
            (32, message.to_bytes(4, "big") + _ICMP6.to_bytes(4, "big")),
            (40, bytes((_ADVERTISEMENT, 0, 0, 0)) + _SOLICITED_OVERRIDE),
            (64, bytes((_TARGET_LINK_ADDRESS, 1))),
        ):
            for position in range(0, len(value), 2):
                code.store(2, FP, _SCRATCH + place + position, as_loaded(value[position : position + 2]))
        for position in range(0, 6, 2):
            code.load(2, R1, FP, _FRAME + 6 + position)
            code.store(2, FP, _SCRATCH + 66 + position, R1)
        # To whom it came from; the MAC it came from is in the frame still, not in the copy.
        code.set(R1, 0)
        code.set(R2, 0)
        code.frame(R3, _SCRATCH)
        code.set(R4, 72)
        code.set(R5, 0)
        code.call(Helper.CHECKSUM_DIFFERENCE)
        code.set(R7, R0)
        for _ in range(3):
            code.set(R1, R7)
            code.compute("rsh", R1, 16)
            code.mask32(R7, 0xFFFF)
            code.compute("add", R7, R1)
        code.compute("xor", R7, -1)
        code.mask32(R7, 0xFFFF)
        code.store(2, FP, _SCRATCH + 42, R7)
        # The answer carries one option, the question perhaps none.
        code.set(R1, CONTEXT)
        code.set(R2, _ND_WITH_OPTION)
        code.set(R3, 0)
        code.call(Helper.CHANGE_TAIL)
        code.jump_if(R0, "!=", 0, "drop")
        self._droppable = True
        code.store(2, FP, _FRAME + _PAYLOAD_LENGTH, as_loaded(message.to_bytes(2, "big")))
        code.store(1, FP, _FRAME + _HOP_LIMIT, 255)
        self._write(_PAYLOAD_LENGTH, _FRAME + _PAYLOAD_LENGTH, _TYPE - _PAYLOAD_LENGTH)
        self._write(_TYPE, _SCRATCH + 40, 32)
        code.set(R1, CONTEXT)
        code.set(R2, 6)
        code.frame(R3, _SMALL)
        code.set(R4, 6)
        code.call(Helper.LOAD_BYTES)
        code.jump_if(R0, "!=", 0, "drop")
        self._write(0, _SMALL, 6)
        self._write(6, _FRAME + 6, 6)
        self._answer_to_guest()
        code.label(other)
        self._load(0, _ETHERNET)  # a load that fails leaves nothing of what was there

    def _steer(self, steers: list[Steer], destination: int, then: str) -> None:
        """Give what is for the virtual router to the next hop of its destination's longest network."""
        code = self._code
        if not steers:
            code.jump(then)
            return
        self._unless_equal(0, _mac(self._edge.router), then)
        size = 4 if destination == _IPV4_DESTINATION else 16
        self._load(destination, size, then)
        code.set(R8, 1 if then == "mss4" else 2 if then == "mss6" else 0)
        for steer in sorted(steers, key=lambda each: -_length(each.network)):
            following = code.fresh("steer")
            network = ip_network(steer.network)
            mask, value = network.netmask.packed, network.network_address.packed
            for position in range(0, size, 2):
                part = mask[position : position + 2]
                if part == b"\0\0":
                    break
                code.load(2, R1, FP, _FRAME + destination + position)
                if part != b"\xff\xff":
                    code.compute("and", R1, as_loaded(part))
                code.jump_if(R1, "!=", as_loaded(value[position : position + 2]), following)
            if steer.hop is None:
                code.jump("drop")
                self._droppable = True
            else:
                code.store(4, FP, _KEY, steer.hop)
                code.jump("hop")
            if network.prefixlen == 0:
                return  # nothing gets past it, and the kernel refuses code that nothing reaches
            code.label(following)
        code.jump(then)

    def _write_hop(self) -> None:
        """The next hop whose number is at the key's place; R8 says how to go on."""
        code, edge = self._code, self._edge
        code.label("hop")
        code.map(R1)
        code.frame(R2, _KEY)
        code.call(Helper.MAP_LOOKUP)
        code.jump_if_null(R0, "onward")
        code.set(R3, R0)
        code.set(R1, CONTEXT)
        code.set(R2, 0)
        code.set(R4, 6)
        code.set(R5, 0)
        code.call(Helper.STORE_BYTES)
        code.jump_if(R0, "!=", 0, "drop")
        self._droppable = True
        if edge.mss4 and any("." in steer.network for steer in edge.steers):
            code.jump_if(R8, "==", 1, "mss4")
        if edge.mss6 and any(":" in steer.network for steer in edge.steers):
            code.jump_if(R8, "==", 2, "mss6")


class _WireSide(_Side):
    def assembled(self) -> Assembler:
        edge = self._edge
        followed = [(number, hop.address) for number, hop in enumerate(edge.hops) if not hop.pinned]
        fourth = [(number, address) for number, address in followed if "." in address]
        sixth = [(number, address) for number, address in followed if ":" in address]
        self._begin()
        self._dispatch(bool(fourth), bool(edge.mss4), bool(sixth) or bool(edge.mss6))
        if fourth:
            self._code.label("arp")
            self._follow_arp(fourth)
        if edge.mss4:
            self._code.label("ipv4")
            self._code.jump("mss4")
        if sixth or edge.mss6:
            self._code.label("ipv6")
            if sixth:
                self._follow_discovery(sixth)
            self._code.jump("mss6" if edge.mss6 else "onward")
        self._lower_segment_size()
        self._finish()
        self._drop()
        return self._code

    def _follow_arp(self, hops: list[tuple[int, str]]) -> None:
        """Requests name their sender as replies do, and so do announcements."""
        code = self._code
        self._load(0, _ARP_LENGTH)
        for number, address in hops:
            following = code.fresh("hop")
            self._unless_equal(_SENDER, ip_address(address).packed, following)
            self._remember(number, _SENDER_MAC)
            code.jump("onward")
            code.label(following)
        code.jump("onward")

    def _follow_discovery(self, hops: list[tuple[int, str]]) -> None:
        """An advertisement names its target's MAC, a solicitation its source's, in the option that comes first."""
        code = self._code
        other = code.fresh("ipv6.other")
        self._load(0, _ND_WITH_OPTION, other)
        code.load(1, R1, FP, _FRAME + _NEXT_HEADER)
        code.jump_if(R1, "!=", _ICMP6, other)
        for number, address in hops:
            for kind, place, option in (
                (_ADVERTISEMENT, _ND_TARGET, _TARGET_LINK_ADDRESS),
                (_SOLICITATION, _IPV6_SOURCE, _SOURCE_LINK_ADDRESS),
            ):
                following = code.fresh("hop")
                code.load(1, R1, FP, _FRAME + _TYPE)
                code.jump_if(R1, "!=", kind, following)
                self._unless_equal(place, ip_address(address).packed, following)
                code.load(1, R1, FP, _FRAME + _ND_OPTION)
                code.jump_if(R1, "!=", option, following)
                self._remember(number, _ND_OPTION + 2)
                code.jump(other)
                code.label(following)
        code.label(other)

    def _remember(self, number: int, place: int) -> None:
        """A next hop's MAC is at `place`; a group's address is nobody's."""
        code = self._code
        skipped = code.fresh("skipped")
        code.load(1, R1, FP, _FRAME + place)
        code.compute("and", R1, 1)
        code.jump_if(R1, "!=", 0, skipped)
        for position in range(0, 6, 2):
            code.load(2, R1, FP, _FRAME + place + position)
            code.store(2, FP, _VALUE + position, R1)
        code.store(2, FP, _VALUE + 6, 0)
        code.store(4, FP, _KEY, number)
        code.map(R1)
        code.frame(R2, _KEY)
        code.frame(R3, _VALUE)
        code.set(R4, 0)
        code.call(Helper.MAP_UPDATE)
        code.label(skipped)


def hop_values(edge: Edge) -> list[bytes]:
    """The map's first content: each next hop's MAC, eight bytes an element."""
    return [_mac(hop.mac) + b"\0\0" for hop in edge.hops]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _length(network: str) -> int:
    return ip_network(network).prefixlen
