"""Lowering the segment size that the ends of a TCP connection offer each other (RFC 9293, 3.7.1)."""

from __future__ import annotations

from shim.network.programs.assembly import Helper, as_loaded
from shim.network.programs.frame import (
    ETHERNET,
    FRAGMENT_OFFSET,
    IPV4_FRAGMENT,
    IPV4_HEADER,
    IPV4_PROTOCOL,
    IPV6_HEADER,
    IPV6_NEXT,
    TCP,
)
from shim.network.programs.writer import CONTEXT, FP, FRAME, R1, R2, R3, R4, R5, R7, R8, R9, SMALL, Writer

#: A TCP header without options.
_TCP_HEADER = 20
_CHECKSUM = 16
_SYN = 0x02
_END, _NOTHING, _SIZE = 0, 1, 2
#: A TCP header has at most 40 bytes of options; real ones put the segment size first or nearly so.
_OPTIONS = 12


def lower4(writer: Writer, mtu: int) -> None:
    """IPv4 packets, from here on; ends at `onward`."""
    code = writer.code
    writer.load(ETHERNET, IPV4_HEADER)
    code.load(1, R1, FP, FRAME + IPV4_PROTOCOL)
    code.jump_if(R1, "!=", TCP, "onward")
    code.load(2, R1, FP, FRAME + IPV4_FRAGMENT)
    code.jump_if(R1, "&", as_loaded(FRAGMENT_OFFSET.to_bytes(2, "big")), "onward")
    code.load(1, R7, FP, FRAME + ETHERNET)
    code.compute("and", R7, 0x0F)
    code.compute("lsh", R7, 2)
    code.compute("add", R7, ETHERNET)
    _lower(writer, mtu - IPV4_HEADER - _TCP_HEADER)


def lower6(writer: Writer, mtu: int) -> None:
    """IPv6 packets, from here on; ends at `onward`."""
    code = writer.code
    writer.load(ETHERNET, IPV6_HEADER)
    code.load(1, R1, FP, FRAME + IPV6_NEXT)
    code.jump_if(R1, "!=", TCP, "onward")
    code.set(R7, ETHERNET + IPV6_HEADER)
    _lower(writer, mtu - IPV6_HEADER - _TCP_HEADER)


def _lower(writer: Writer, most: int) -> None:
    """R7 is where TCP begins, R8 where its options end, R9 where the next one begins."""
    code = writer.code
    found = code.fresh("found")
    writer.load(R7, _TCP_HEADER)
    code.load(1, R1, FP, FRAME + 13)
    code.compute("and", R1, _SYN)
    code.jump_if(R1, "==", 0, "onward")
    code.load(1, R8, FP, FRAME + 12)
    code.compute("rsh", R8, 4)
    code.compute("lsh", R8, 2)
    code.compute("add", R8, R7)
    code.set(R9, R7)
    code.compute("add", R9, _TCP_HEADER)
    for _ in range(_OPTIONS):
        following, sized = code.fresh("option"), code.fresh("sized")
        code.jump_if(R9, ">=", R8, "onward")
        writer.load(R9, 4)  # the option looked for has four bytes, so where fewer are left it is not
        code.load(1, R1, FP, FRAME)
        code.jump_if(R1, "==", _END, "onward")
        code.jump_if(R1, "==", _SIZE, found)
        code.jump_if(R1, "!=", _NOTHING, sized)
        code.compute("add", R9, 1)
        code.jump(following)
        code.label(sized)
        code.load(1, R1, FP, FRAME + 1)
        code.jump_if(R1, "<", 2, "onward")
        code.compute("add", R9, R1)
        code.label(following)
    code.jump("onward")

    code.label(found)
    code.load(2, R8, FP, FRAME + 2)
    code.set(R1, R8)
    code.network_order(R1, 16)
    code.jump_if(R1, "<=", most, "onward")
    lowered = most.to_bytes(2, "big")
    writer.put(SMALL, lowered)
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
    code.compute("add", R2, _CHECKSUM)
    code.set(R5, 2)
    code.call(Helper.L4_CHECKSUM_REPLACE)
    code.compute("add", R9, 2)
    writer.write(R9, SMALL, 2)
    code.jump("onward")
