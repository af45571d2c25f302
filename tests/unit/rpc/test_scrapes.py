"""The HTTP door for metrics: what it serves, and whom it does not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.errors import InvalidRequest, NodeFault
from shim.rpc import scrapes
from shim.rpc.scrapes import ScrapeServer, parse_address


async def exposition(accept: str) -> tuple[str, bytes]:
    return "text/plain", f"accepted {accept}\n".encode()


@pytest.fixture
async def server() -> AsyncIterator[ScrapeServer]:
    made = ScrapeServer(exposition)
    await made.start("127.0.0.1:0")
    yield made
    await made.stop()


async def exchange(server: ScrapeServer, request: bytes) -> bytes:
    if isinstance(server.address, Path):
        reader, writer = await asyncio.open_unix_connection(server.address)
    else:
        assert server.address is not None
        reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_scrape(server: ScrapeServer) -> None:
    answer = await exchange(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\naccept: text/x;q=1\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Type: text/plain\r\n" in head
    assert body == b"accepted text/x;q=1\n" and f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.0", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"nonsense", b"404"),
        (b"\xff\xfe \x00", b"404"),
    ],
)
async def test_what_else_is_asked(request_line: bytes, status: bytes, server: ScrapeServer) -> None:
    assert (await exchange(server, request_line + b"\r\n\r\n")).split(b" ")[1] == status


async def test_a_head_without_end_is_cut_off(server: ScrapeServer) -> None:
    assert await exchange(server, b"x" * (17 << 10)) == b""


async def test_slow_clients_are_not_waited_for(server: ScrapeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "_TIMEOUT", 0.05)
    monkeypatch.setattr(scrapes, "_CLIENTS", 2)
    assert isinstance(server.address, tuple)
    slow = [await asyncio.open_connection(*server.address) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert await exchange(server, b"GET /metrics HTTP/1.1\r\n\r\n") == b"", "no more than so many at once"
    for reader, writer in slow:
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert b"200 OK" in await exchange(server, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_a_unix_socket_for_root_alone(tmp_path: Path) -> None:
    server = ScrapeServer(exposition)
    path = tmp_path / "metrics.sock"
    await server.start(f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"200 OK" in await exchange(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    await server.stop()
    assert list(tmp_path.iterdir()) == []
    await server.stop()


async def test_stopping_does_not_wait_for_a_client(server: ScrapeServer) -> None:
    assert isinstance(server.address, tuple)
    reader, writer = await asyncio.open_connection(*server.address)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        await server.stop()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_taken_address_is_named(server: ScrapeServer) -> None:
    assert isinstance(server.address, tuple)
    with pytest.raises(NodeFault, match=r"metrics\.listen"):
        await ScrapeServer(exposition).start(f"127.0.0.1:{server.address[1]}")


def test_addresses() -> None:
    assert parse_address("127.0.0.1:9477") == ("127.0.0.1", 9477)
    assert parse_address("[::1]:9477") == ("::1", 9477)
    for wrong in ("9477", ":9477", "host:", "host:port", "host:65536", "host:-1"):
        with pytest.raises(InvalidRequest, match=r"metrics\.listen"):
            parse_address(wrong)
