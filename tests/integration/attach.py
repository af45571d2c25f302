"""kubectl's part of attach and exec: a WebSocket to containerd's streaming server (RFC 6455, `v4.channel.k8s.io`).

A message's first byte is its channel; the rest is what the stream carries.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from types import TracebackType
from urllib.parse import urlsplit

from tests.integration.layouts import within

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_BINARY, _CLOSE = 2, 8  # opcodes (RFC 6455, 5.2)
_LAST, _MASKED = 0x80, 0x80


class Attached:
    """One connection. `url` is CRI's answer to Attach or Exec, `netns` names containerd's network namespace."""

    def __init__(self, netns: str, url: str, *, timeout: float = 10.0) -> None:
        self.stdout = b""
        self.stderr = b""
        parts = urlsplit(url)
        self._socket = within(netns, lambda: socket.create_connection((parts.hostname, parts.port), timeout))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: http://{parts.netloc}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        self._reader = self._socket.makefile("rb")
        status = self._reader.readline()
        assert b" 101 " in status, status
        while self._reader.readline().strip():
            pass

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._socket.close()

    def write(self, data: bytes) -> None:
        """Send bytes to the process's stdin."""
        self._send(_BINARY, bytes((_STDIN,)) + data)

    def _send(self, opcode: int, payload: bytes) -> None:
        head = bytes((_LAST | opcode,))
        if len(payload) < 126:
            head += bytes((_MASKED | len(payload),))
        else:
            head += bytes((_MASKED | 127,)) + struct.pack("!Q", len(payload))
        # A mask of zeros leaves the payload as it is.
        self._socket.sendall(head + bytes(4) + payload)

    def read_until(self, wanted: bytes) -> None:
        """Read until stdout has these bytes. Raises TimeoutError, AssertionError at the end."""
        while wanted not in self.stdout:
            assert self._read(), f"ended with {self.stdout!r}"

    def read_all(self) -> None:
        """Read until the server ends the connection."""
        while self._read():
            pass

    def _read(self) -> bool:
        head = self._reader.read(2)
        if len(head) < 2 or head[0] & 0x0F == _CLOSE:
            return False
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._reader.read(2 if size == 126 else 8), "big")
        payload = self._reader.read(size)
        if payload and payload[0] == _STDOUT:
            self.stdout += payload[1:]
        elif payload and payload[0] == _STDERR:
            self.stderr += payload[1:]
        return True
