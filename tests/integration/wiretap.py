"""What is sent on a pod's wire by others than may: frames that come to the node's end of its interfaces."""

from __future__ import annotations

import ctypes
import socket
import struct
from types import TracebackType

from tests.integration import layouts
from tests.integration.layouts import Site, Wire

_EVERYTHING = 0x0003  # ETH_P_ALL (linux/if_ether.h)
_SO_ATTACH_FILTER = 26
_OUTGOING = 4  # PACKET_OUTGOING (linux/if_packet.h)
_PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE (linux/filter.h)
# Classic BPF (linux/filter.h, bpf_common.h): load a word, half-word or byte of the packet, jump if equal, return.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_KEPT = 96


class Wiretap:
    """A context: listens at all of a site's wires."""

    def __init__(self, site: Site) -> None:
        self._sockets = [_listening(wire) for wire in site.wires]

    def intruders(self) -> list[str]:
        """The first bytes of frames that came from a MAC that has no business there."""
        return [frame.hex(" ", 2) for opened in self._sockets for frame in _received(opened)]

    def __enter__(self) -> Wiretap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._sockets:
            opened.close()


def _listening(wire: Wire) -> socket.socket:
    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        program = _program(wire.macs)
        code = ctypes.create_string_buffer(program)
        pointer = struct.pack("HL", len(program) // 8, ctypes.addressof(code))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)
        opened.bind((wire.device, _EVERYTHING))
        return opened

    return layouts.within(wire.namespace, listen)


def _program(macs: tuple[str, ...]) -> bytes:
    """Keep what comes in from any other MAC."""
    code = [(_LOAD_BYTE, 0, 0, _PACKET_TYPE), (_JUMP_EQUAL, 0, 1, _OUTGOING), (_RETURN, 0, 0, 0)]
    for mac in macs:
        high, low = struct.unpack("!IH", bytes.fromhex(mac.replace(":", "")))
        code += [
            (_LOAD_WORD, 0, 0, 6),
            (_JUMP_EQUAL, 0, 3, high),
            (_LOAD_HALF, 0, 0, 10),
            (_JUMP_EQUAL, 0, 1, low),
            (_RETURN, 0, 0, 0),
        ]
    code.append((_RETURN, 0, 0, _KEPT))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _received(opened: socket.socket) -> list[bytes]:
    frames = []
    try:
        while True:
            frames.append(opened.recv(_KEPT))
    except BlockingIOError:
        return frames
