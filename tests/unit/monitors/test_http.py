"""The request over a monitor's control socket, and peers that answer anything."""

from __future__ import annotations

import asyncio
import socket

import pytest

from shim.errors import NodeFault, ShimError, Unreachable
from shim.monitors import http


async def ask(answer: bytes) -> bytes:
    """What the peer is sent by `put`, when it answers so and hangs up."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    asking = asyncio.ensure_future(http.put(ours, "/api/v1/vm.power-button"))
    heard = b""
    while not heard.endswith(b"\r\n\r\n"):
        heard += await loop.sock_recv(peer, 4096)
    await loop.sock_sendall(peer, answer)
    peer.close()
    await asking
    return heard


@pytest.mark.parametrize("status", [b"204 No Content", b"200 OK", b"204 "])
async def test_it_asks_and_is_content(status: bytes) -> None:
    heard = await ask(b"HTTP/1.1 " + status + b"\r\nServer: x\r\nContent-Length: 0\r\n\r\n")
    assert heard.startswith(b"PUT /api/v1/vm.power-button HTTP/1.1\r\n")
    assert b"\r\nHost: localhost\r\n" in heard


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            b'HTTP/1.1 500 Internal\r\ncontent-length: 19\r\n\r\n["VM is not booted"]',
            NodeFault,
            r'refuses with 500: \["VM is not booted"',
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", NodeFault, "refuses with 404: $"),
        (b"", Unreachable, "hung up"),
        (b"HTTP/1.1 204 No Content\r\nServer", Unreachable, "hung up"),
        (b"HTTP/1.1 500 x\r\nContent-Length: 99\r\n\r\nshort", Unreachable, "hung up"),
        (b"SSH-2.0-x\r\n", NodeFault, "does not speak HTTP"),
        (b"x" * (1 << 15), NodeFault, "more than 8192 bytes"),
        (b"HTTP/1.1 204 x\r\n" + b"a: b\r\n" * 40, NodeFault, "more than 32 headers"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 1048577\r\n\r\n", NodeFault, "has 1048577 bytes, more than 1048576"),
    ],
)
async def test_answers_that_are_none(answer: bytes, kind: type[ShimError], words: str) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(kind, match=words):
            await ask(answer)


async def test_one_that_says_nothing_can_be_given_up() -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    with peer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await http.put(ours, "/")
        async with asyncio.timeout(5):
            while await asyncio.get_running_loop().sock_recv(peer, 4096):
                pass
