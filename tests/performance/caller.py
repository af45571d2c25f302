"""Calls one method over ttrpc, over and over: `caller.py SOCKET COUNT CLIENTS`, a request's payload on standard input.
Prints the last answer's payload in hexadecimal, then each round trip in microseconds. It is run by itself.

As little as Python can do between two system calls, so that the server is what is measured: no loop of callbacks, and
nothing is encoded or decoded but ttrpc's header (containerd/ttrpc, PROTOCOL.md): length and stream, 32 bits each, type
and flags, a byte each.
"""

import select
import socket
import struct
import sys
import time

_HEADER = struct.Struct("!IIBB")
_REQUEST = 1


class _Client:
    """One connection with one call under way."""

    def __init__(self, path: str, request: bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._request = request
        self._stream = 1
        self._received = b""
        self.answer = b""
        self._began = 0.0

    def call(self) -> None:
        frame = _HEADER.pack(len(self._request), self._stream, _REQUEST, 0) + self._request
        self._stream += 2  # a client's streams have odd numbers
        self._began = time.perf_counter()
        self.socket.send(frame)

    def answered(self) -> float:
        """Seconds since the call, or 0 where the answer is not whole yet."""
        data = self._received + self.socket.recv(65536)
        now = time.perf_counter()
        if len(data) < _HEADER.size or len(data) < _HEADER.size + _HEADER.unpack_from(data)[0]:
            self._received = data
            return 0.0
        self._received, self.answer = b"", data[_HEADER.size :]
        return now - self._began


def _alone(client: _Client, count: int) -> list[float]:
    took = []
    for _ in range(count):
        client.call()
        while not (seconds := client.answered()):
            pass
        took.append(seconds)
    return took


def _together(clients: list[_Client], count: int) -> list[float]:
    """All at once, each its next call as soon as it has an answer."""
    took: list[float] = []
    poll = select.epoll()
    by_descriptor = {client.socket.fileno(): client for client in clients}
    for descriptor, client in by_descriptor.items():
        poll.register(descriptor, select.EPOLLIN)
        client.call()
    while len(took) < count:
        for descriptor, _ in poll.poll():
            client = by_descriptor[descriptor]
            if seconds := client.answered():
                took.append(seconds)
                client.call()
    return took


def _main(path: str, count: int, clients: int) -> None:
    request = sys.stdin.buffer.read()
    made = [_Client(path, request) for _ in range(clients)]
    took = _alone(made[0], count) if clients == 1 else _together(made, count)
    print(made[0].answer.hex())
    print("\n".join(f"{seconds * 1e6:.1f}" for seconds in took))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
