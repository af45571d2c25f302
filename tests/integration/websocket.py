"""The streams of `kubectl exec`, `attach` and `port-forward`: WebSocket (RFC 6455) to containerd's streaming server.

The first byte of each message names its channel, in Kubernetes' sub-protocol v4.channel.k8s.io. Of exec and attach: 0
stdin, 1 stdout, 2 stderr, 3 the outcome as JSON, 4 the terminal's size. Of a forwarded port: 0 the data, 1 the error;
each begins with the port's number.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from types import TracebackType
from urllib.parse import urlsplit

from tests.integration.layouts import within
from tests.integration.node import Node

STDIN, STDOUT, STDERR, OUTCOME = range(4)
DATA, ERROR = range(2)
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


class Stream:
    """One such connection, from the node's network; use it as a context. What has come is in `received`, by channel."""

    def __init__(self, node: Node, url: str, *, query: str = "", timeout: float = 10.0) -> None:
        """Raises AssertionError with the server's words where it takes no WebSocket, OSError where it is not there."""
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        where = parts.hostname, parts.port
        self.received: dict[int, bytes] = {}
        self._socket = within(node.netns, lambda: socket.create_connection(where, timeout))
        self._buffer = b""
        path = f"{parts.path}?{query}" if query else parts.path
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://{parts.netloc}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0], (head + self._buffer).decode(errors="replace")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, channel: int, data: bytes) -> None:
        """One message on a channel."""
        self._frame(_BINARY, bytes([channel]) + data)

    def until(self, channel: int, wanted: bytes) -> bytes:
        """Read until `wanted` has come on the channel; all that has. Raises EOFError, TimeoutError."""
        while wanted not in self.received.get(channel, b""):
            if not self._message():
                raise EOFError(f"the stream ended with {self.received}")
        return self.received[channel]

    def to_the_end(self) -> dict[int, bytes]:
        """Read until the server ends it; what has come, by channel. Raises TimeoutError."""
        while self._message():
            pass
        return self.received

    def _message(self) -> bool:
        """Take in one frame. False at the end."""
        try:
            first, second = self._take(2)
            size = second & 0x7F  # a server's frames are not masked
            if size == 126:
                (size,) = struct.unpack("!H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._take(8))
            data = self._take(size)
        except (EOFError, ConnectionResetError):
            return False
        opcode = first & 0x0F
        if opcode == _PING:
            self._frame(_PONG, data)
        elif opcode != _CLOSE and data:
            self.received[data[0]] = self.received.get(data[0], b"") + data[1:]
        return opcode != _CLOSE

    def _frame(self, opcode: int, data: bytes) -> None:
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack("!H", len(data))
        # A client must mask; a mask of zeros changes nothing.
        self._socket.sendall(bytes([0x80 | opcode]) + size + bytes(4) + data)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError("the server closed the connection")
        self._buffer += data
