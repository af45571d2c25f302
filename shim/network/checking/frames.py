"""Ethernet frames on an interface of another namespace: a packet socket (packet(7)) that the loop watches.

Such a socket sees a frame before traffic control, a bridge or a macvtap takes it, and sees what is sent too. A filter
in the kernel keeps everything but ARP, ICMP and ICMPv6 away: the interface carries a pod's whole traffic.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from shim.errors import NetworkFault
from shim.network.kernel.namespace import Namespace

T = TypeVar("T")

_ETH_P_ALL = 0x0003  # linux/if_ether.h
_SO_MARK, _SO_ATTACH_FILTER = 36, 26  # asm-generic/socket.h
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h
_PACKET_OUTGOING = 4  # linux/if_packet.h
#: Bytes of a frame that are looked at: an ICMP error with the head of what it quotes.
_LENGTH = 192
#: Frames taken at one wake-up: the loop has other work.
_AT_ONCE = 64

# Classic BPF (linux/bpf_common.h, linux/filter.h): operation, jumps where true and where false, operand.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_HALF, _LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x28, 0x30, 0x15, 0x06
_FILTER = (
    (_LOAD_HALF, 0, 0, 12),  # the frame's type
    (_JUMP_EQUAL, 7, 0, 0x0806),  # ARP
    (_JUMP_EQUAL, 0, 2, 0x0800),
    (_LOAD_BYTE, 0, 0, 23),  # IPv4's protocol
    (_JUMP_EQUAL, 4, 3, 1),  # ICMP
    (_JUMP_EQUAL, 0, 2, 0x86DD),
    (_LOAD_BYTE, 0, 0, 20),  # IPv6's next header
    (_JUMP_EQUAL, 1, 0, 58),  # ICMPv6
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _LENGTH),
)


class Frames:
    """An interface's frames. Made by `open_frames`; whoever made it closes it."""

    def __init__(self, interface: str, opened: socket.socket) -> None:
        self.interface = interface
        self._socket = opened
        self._listeners: list[Callable[[bytes, bool], None]] = []
        asyncio.get_running_loop().add_reader(opened.fileno(), self._read)

    async def ask(
        self,
        questions: Callable[[int], Sequence[bytes]],
        answer: Callable[[bytes, bool], T | None],
        waits: Sequence[float],
    ) -> T | None:
        """Send `questions(attempt)` and wait `waits[attempt]` seconds for a frame of which `answer` makes something;
        that, or None when all attempts have passed.

        `answer` is given each frame's head and whether it left by the interface. Raises OSError where nothing can be
        sent: ENETDOWN, ENXIO when the interface is down or gone.
        """
        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def listen(frame: bytes, leaving: bool) -> None:
            made = answer(frame, leaving)
            if made is not None and not found.done():
                found.set_result(made)

        with self._listening(listen):
            for attempt, wait in enumerate(waits):
                for frame in questions(attempt):
                    self._send(frame)
                await asyncio.wait([found], timeout=wait)
                if found.done():
                    return found.result()
        return None

    def close(self) -> None:
        """Stop watching and close the socket; harmless twice."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    @contextmanager
    def _listening(self, listener: Callable[[bytes, bool], None]) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:
            # A full queue loses the frame, as a wire does: there will be another attempt.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame, address = self._socket.recvfrom(_LENGTH)
            except OSError:  # nothing more, or the interface went down, which the next send reports
                return
            for listener in tuple(self._listeners):
                listener(frame, address[2] == _PACKET_OUTGOING)


async def open_frames(namespace: Namespace, interface: str, *, mark: int = 0) -> Frames:
    """The frames of an interface in `namespace`.

    What is sent goes straight to the device, past traffic control's programs; where `mark` is given it goes through
    them, so marked. Raises NetworkFault where there is no such interface.
    """
    made: list[socket.socket] = []
    try:
        await namespace.run(lambda: made.append(_open(interface, mark)))
    except asyncio.CancelledError:
        for unwanted in made:
            unwanted.close()
        raise
    except OSError as error:
        raise NetworkFault(
            f"its frames cannot be seen: {os.strerror(error.errno or 0)}",
            subject=interface,
            remedy="was the pod's network changed by somebody else?",
        ) from error
    return Frames(interface, made[0])


def _open(interface: str, mark: int) -> socket.socket:
    """In the calling thread's network namespace. Raises OSError."""
    # With no protocol it receives nothing until it is bound: no frame gets in before the filter.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        _attach_filter(opened)
        if mark:
            opened.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        else:
            opened.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        opened.bind((interface, _ETH_P_ALL))
    except BaseException:
        opened.close()
        raise
    return opened


def _attach_filter(opened: socket.socket) -> None:
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in _FILTER))
    # struct sock_fprog: the number of instructions, and where they are.
    program = struct.pack("@HP", len(_FILTER), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
