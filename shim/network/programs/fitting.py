"""What the guest sends and the wire cannot carry: cut up, or sent back with the size that would do.

A guest that was told the MTU sends no such packets. One that takes 1500 bytes for granted does, and the wire would drop
them without a word. So the pod does what a router does: IPv4 packets that may be cut are (RFC 791), for the others the
guest hears of it (RFC 1191, RFC 8201).
"""

from __future__ import annotations

from shim.network.programs.answering import turn_macs
from shim.network.programs.assembly import Helper, as_loaded
from shim.network.programs.frame import (
    DONT_FRAGMENT,
    ETHERNET,
    FRAGMENTATION_NEEDED,
    ICMP,
    ICMP6,
    IPV4_CHECKSUM,
    IPV4_DESTINATION,
    IPV4_FRAGMENT,
    IPV4_HEADER,
    IPV4_SOURCE,
    IPV4_TOTAL,
    IPV6_DESTINATION,
    IPV6_HEADER,
    IPV6_SOURCE,
    MORE_FRAGMENTS,
    PACKET_TOO_BIG,
    UNREACHABLE,
)
from shim.network.programs.writer import (
    CONTEXT,
    FP,
    FRAME,
    LENGTH,
    MARK,
    R1,
    R2,
    R3,
    R4,
    R7,
    SCRATCH,
    SEGMENT_SIZE,
    Writer,
)

#: The rest of a packet that was cut, coming again.
REST = 0x554D

_ICMP_HEADER = 8
#: How much of a packet an error quotes: its header and the first bytes behind, which name the connection.
_QUOTED = 8
_ERROR_HOPS = 64
_ROOM_BEHIND_IP = 0  # BPF_ADJ_ROOM_NET


def begin_rest(writer: Writer, mtu: int) -> None:
    """Comes before everything else: the rest of a cut packet gets its own header and goes on at `ipv4.fit`."""
    code = writer.code
    first = code.fresh("first")
    code.load(4, R1, CONTEXT, MARK)
    code.jump_if(R1, "!=", REST, first)
    code.store(4, CONTEXT, MARK, 0)
    code.set(R1, CONTEXT)
    code.set(R2, -_piece(mtu))
    code.set(R3, _ROOM_BEHIND_IP)
    code.set(R4, 0)
    code.call(Helper.ADJUST_ROOM)
    writer.drop_unless_done()
    writer.load(ETHERNET, IPV4_HEADER, "drop")
    _change(writer, IPV4_TOTAL, -_piece(mtu))
    _change(writer, IPV4_FRAGMENT, _piece(mtu) // 8)
    _write_header(writer)
    code.jump("ipv4.fit")
    code.label(first)


def fit4(writer: Writer, mtu: int, then: str) -> None:
    """At the label `ipv4.fit`. What fits goes on at `then`."""
    code = writer.code
    code.label("ipv4.fit")
    _go_on_if_it_fits(writer, mtu, then)
    writer.load(ETHERNET, IPV4_HEADER)
    code.load(1, R1, FP, FRAME + ETHERNET)
    code.jump_if(R1, "!=", 0x45, "onward")  # a header with options: the wire will drop it
    code.load(2, R1, FP, FRAME + IPV4_FRAGMENT)
    code.jump_if(R1, "&", as_loaded(DONT_FRAGMENT.to_bytes(2, "big")), "ipv4.refuse")
    path = writer.path
    writer.redirect_clone(path.answer, inward=not path.inward, mark=REST)
    code.load(2, R1, FP, FRAME + IPV4_FRAGMENT)
    code.compute("or", R1, as_loaded(MORE_FRAGMENTS.to_bytes(2, "big")))
    code.store(2, FP, FRAME + IPV4_FRAGMENT, R1)
    writer.put(FRAME + IPV4_TOTAL, (IPV4_HEADER + _piece(mtu)).to_bytes(2, "big"))
    writer.resize(ETHERNET + IPV4_HEADER + _piece(mtu))
    _write_header(writer)
    code.jump("onward")

    code.label("ipv4.refuse")
    writer.load(ETHERNET, IPV4_HEADER + _QUOTED)
    message = _ICMP_HEADER + IPV4_HEADER + _QUOTED
    writer.put(SCRATCH, b"\x45\0" + (IPV4_HEADER + message).to_bytes(2, "big") + bytes(4))
    writer.put(SCRATCH + 8, bytes((_ERROR_HOPS, ICMP, 0, 0)))
    writer.copy(SCRATCH + 12, FRAME + IPV4_DESTINATION, 4)
    writer.copy(SCRATCH + 16, FRAME + IPV4_SOURCE, 4)
    writer.put(SCRATCH + 20, bytes((UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0)) + mtu.to_bytes(2, "big"))
    writer.copy(SCRATCH + 28, FRAME + ETHERNET, IPV4_HEADER + _QUOTED)
    writer.checksum(SCRATCH, IPV4_HEADER)
    code.store(2, FP, SCRATCH + 10, R7)
    writer.checksum(SCRATCH + IPV4_HEADER, message)
    code.store(2, FP, SCRATCH + 22, R7)
    writer.resize(ETHERNET + IPV4_HEADER + message)
    writer.write(ETHERNET, SCRATCH, IPV4_HEADER + message)
    _send_back(writer)


def fit6(writer: Writer, mtu: int, then: str) -> None:
    """At the label `ipv6.fit`. What fits goes on at `then`."""
    code = writer.code
    code.label("ipv6.fit")
    _go_on_if_it_fits(writer, mtu, then)
    writer.load(ETHERNET, IPV6_HEADER + _QUOTED)
    message = _ICMP_HEADER + IPV6_HEADER + _QUOTED
    # Behind the addresses comes what is summed up, and what is sent starts where that does.
    writer.copy(SCRATCH, FRAME + IPV6_DESTINATION, 16)
    writer.copy(SCRATCH + 16, FRAME + IPV6_SOURCE, 16)
    writer.put(SCRATCH + 32, message.to_bytes(4, "big") + ICMP6.to_bytes(4, "big"))
    writer.put(SCRATCH + 40, bytes((PACKET_TOO_BIG, 0, 0, 0)) + mtu.to_bytes(4, "big"))
    writer.copy(SCRATCH + 48, FRAME + ETHERNET, IPV6_HEADER + _QUOTED)
    writer.checksum(SCRATCH, 40 + message)
    code.store(2, FP, SCRATCH + 42, R7)
    writer.resize(ETHERNET + IPV6_HEADER + message)
    writer.write(ETHERNET + IPV6_HEADER, SCRATCH + 40, message)
    writer.write(IPV6_SOURCE, SCRATCH, 32)
    writer.put(FRAME + ETHERNET, b"\x60\0\0\0" + message.to_bytes(2, "big") + bytes((ICMP6, _ERROR_HOPS)))
    writer.write(ETHERNET, FRAME + ETHERNET, 8)
    _send_back(writer)


def _piece(mtu: int) -> int:
    """How much of a packet goes into one that fits: offsets count eights of bytes."""
    return (mtu - IPV4_HEADER) & ~7


def _go_on_if_it_fits(writer: Writer, mtu: int, then: str) -> None:
    code = writer.code
    code.load(4, R1, CONTEXT, LENGTH)
    code.jump_if(R1, "<=", ETHERNET + mtu, then)
    code.load(4, R1, CONTEXT, SEGMENT_SIZE)
    code.jump_if(R1, "!=", 0, then)  # many segments in one, which the device cuts


def _change(writer: Writer, offset: int, by: int) -> None:
    """Add to a 16-bit field of the copy."""
    code = writer.code
    code.load(2, R1, FP, FRAME + offset)
    code.network_order(R1, 16)
    code.compute("add", R1, by)
    code.network_order(R1, 16)
    code.store(2, FP, FRAME + offset, R1)


def _write_header(writer: Writer) -> None:
    """The copy's IPv4 header into the frame, with its checksum."""
    code = writer.code
    code.store(2, FP, FRAME + IPV4_CHECKSUM, 0)
    writer.copy(SCRATCH, FRAME + ETHERNET, IPV4_HEADER)
    writer.checksum(SCRATCH, IPV4_HEADER)
    code.store(2, FP, FRAME + IPV4_CHECKSUM, R7)
    writer.write(ETHERNET, FRAME + ETHERNET, IPV4_HEADER)


def _send_back(writer: Writer) -> None:
    writer.load(0, ETHERNET, "drop")
    turn_macs(writer, FRAME)
    writer.to_guest()
