"""An rtnetlink socket, for threads.

The kernel works a request off inside sendmsg(2), where it may wait for the one lock of all network configuration on
the machine or for a device to be torn down. So all of this blocks, and is used from a thread (`Namespace.run`), which
does all its sending and receiving in one go: a change of threads costs more than most requests do.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shim.network.kernel.rtnetlink import HEADER, Flag, Kind, Message, attributes, message, messages

# linux/netlink.h and asm-generic/socket.h; the socket module does not name them.
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_NLMSGERR_ATTR_MSG = 1

_RECEIVE_BUFFER = 1 << 20
#: A dump fills a datagram of at most 32 KiB (net/netlink/af_netlink.c), so one read never cuts a message off.
_DATAGRAM = 1 << 16
#: Bounds of one send: an acknowledgement occupies about 1 KiB of the receive buffer whatever its size, and a send
#: must fit the default send buffer of 208 KiB.
_BATCH_MESSAGES = 256
_BATCH_BYTES = 64 << 10
#: A dump that the kernel marks as inconsistent is repeated; a namespace that changes this often is not settling.
_DUMP_ATTEMPTS = 16
#: Answers are there before sendmsg(2) returns; a kernel that lets one wait so long (seconds) is in trouble.
_PATIENCE = 10.0


class NetlinkError(OSError):
    """The kernel refused a request. `operation` says which one in words, `detail` is the kernel's own explanation."""

    def __init__(self, number: int, operation: str, detail: str = "") -> None:
        text = os.strerror(number)
        super().__init__(number, f"{operation}: {text} ({detail})" if detail else f"{operation}: {text}")
        self.operation = operation
        self.detail = detail


class Request(NamedTuple):
    """One request: the message type, the flags beyond REQUEST and ACK, the body, and what it is for, in words."""

    kind: int
    flags: int
    body: bytes
    operation: str


def open_socket() -> socket.socket:
    """An rtnetlink socket in the calling thread's network namespace. Raises OSError."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        opened.settimeout(_PATIENCE)
        opened.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:  # needs CAP_NET_ADMIN over the host; without it reading still works
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    except BaseException:
        opened.close()
        raise
    return opened


class Netlink:
    """Requests and dumps over one socket, one transaction at a time. Owns the socket. Everything raises OSError where
    the socket fails."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._lock = threading.Lock()
        self._sequence = itertools.count(1)
        #: How many sends and dumps were made; a figure for tests and traces.
        self.round_trips = 0

    def dump(self, kind: Kind, body: bytes, operation: str) -> list[Message]:
        """Every object of one sort. `kind` is a GET. Raises NetlinkError; EINTR if it changes under every attempt."""
        for _ in range(_DUMP_ATTEMPTS):
            with self._lock:
                found, consistent = self._dump_once(kind, body, operation)
            if consistent:
                return found
        raise NetlinkError(errno.EINTR, operation, "the namespace kept changing")

    def get(self, kind: Kind, body: bytes, operation: str) -> Message:
        """One object. Raises NetlinkError (ENOENT, ENODEV) if there is none."""
        with self._lock:
            sequence = next(self._sequence)
            self._send(message(kind, Flag.REQUEST, sequence, body))
            received = next(self._answers(sequence))
        if received.kind == Kind.ERROR:
            raise _error(received, operation) or NetlinkError(errno.ENOENT, operation)
        return received

    def attempt(self, requests: Sequence[Request]) -> list[NetlinkError | None]:
        """Send all, in as few sends as fit, and return each one's outcome in order.

        The kernel does not stop at a failure: later requests of the list are still carried out.
        """
        outcomes: list[NetlinkError | None] = []
        with self._lock:
            for batch in _batches(requests):
                outcomes += self._send_batch(batch)
        return outcomes

    def execute(self, requests: Sequence[Request]) -> None:
        """Send all; raises the first NetlinkError there is."""
        for outcome in self.attempt(requests):
            if outcome is not None:
                raise outcome

    def close(self) -> None:
        """Close the socket; harmless twice."""
        self._socket.close()

    def _send_batch(self, batch: Sequence[Request]) -> list[NetlinkError | None]:
        pending: dict[int, int] = {}
        outcomes: list[NetlinkError | None] = [None] * len(batch)
        data = bytearray()
        for position, request in enumerate(batch):
            sequence = next(self._sequence)
            pending[sequence] = position
            data += message(request.kind, request.flags | Flag.REQUEST | Flag.ACK, sequence, request.body)
        self._send(bytes(data))
        while pending:
            for received in self._receive():
                if received.kind == Kind.ERROR and received.sequence in pending:
                    position = pending.pop(received.sequence)
                    outcomes[position] = _error(received, batch[position].operation)
        return outcomes

    def _dump_once(self, kind: Kind, body: bytes, operation: str) -> tuple[list[Message], bool]:
        sequence = next(self._sequence)
        self._send(message(kind, Flag.REQUEST | Flag.DUMP, sequence, body))
        found: list[Message] = []
        consistent = True
        for received in self._answers(sequence):
            consistent = consistent and not received.flags & Flag.DUMP_INTR
            if received.kind == Kind.ERROR:
                error = _error(received, operation)
                if error is not None:
                    raise error
            elif received.kind == Kind.DONE:
                status = struct.unpack_from("=i", received.body)[0] if len(received.body) >= 4 else 0
                if status < 0:
                    raise NetlinkError(-status, operation)
                break
            else:
                found.append(received)
        return found, consistent

    def _answers(self, sequence: int) -> Iterator[Message]:
        """What comes for one request, without end: the caller knows when it has all."""
        while True:
            for received in self._receive():
                if received.sequence == sequence:
                    yield received

    def _send(self, data: bytes) -> None:
        self.round_trips += 1
        self._socket.sendto(data, (0, 0))

    def _receive(self) -> list[Message]:
        return list(messages(self._socket.recv(_DATAGRAM)))


def _batches(requests: Sequence[Request]) -> list[list[Request]]:
    batches: list[list[Request]] = []
    size = _BATCH_BYTES
    for request in requests:
        length = HEADER.size + len(request.body) + 3
        if size + length > _BATCH_BYTES or len(batches[-1]) == _BATCH_MESSAGES:
            batches.append([])
            size = 0
        batches[-1].append(request)
        size += length
    return batches


def _error(received: Message, operation: str) -> NetlinkError | None:
    number = -struct.unpack_from("=i", received.body)[0]
    if number == 0:
        return None
    detail = ""
    if received.flags & Flag.ACK_TLVS:
        # The request's header is echoed first; its body only where the answer is not capped.
        echoed = struct.unpack_from("=I", received.body, 4)[0]
        offset = 4 + (HEADER.size if received.flags & Flag.CAPPED else (echoed + 3) & ~3)
        for kind, value in attributes(received.body, offset):
            if kind == _NLMSGERR_ATTR_MSG:
                detail = value.rstrip(b"\0").decode(errors="replace")
    return NetlinkError(number, operation, detail)
