"""A place in the network to talk from and to be talked to: sockets of a namespace, used by the test's own event loop.

A vantage point answers TCP and UDP on the echo port (RFC 862), and pings. Nothing is asked twice: a packet that is lost
is a failure, as a first packet's loss costs a real client a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import cast

from tests.integration import layouts

_ECHO = 7
#: Seconds until a packet counts as lost; less than what TCP waits before it says something again.
PATIENCE = 0.9
#: IP_MTU_DISCOVER (linux/in.h) and IPV6_MTU_DISCOVER (linux/in6.h).
_DISCOVER = {4: 10, 6: 23}
_DONT, _DO = 0, 2  # IP_PMTUDISC_DONT, IP_PMTUDISC_DO
_ICMP_REQUEST, _ICMP_REPLY, _ICMP6_REQUEST, _ICMP6_REPLY = 8, 0, 128, 129
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
#: Bytes that a socket may keep while the loop is elsewhere: large packets count for twice their size.
_ROOM = 4 << 20
#: ICMP_FILTER of raw(7) and ICMP6_FILTER (RFC 3542): the types whose bit is set are not wanted.
_REPLIES_ONLY = {
    4: (255, 1, struct.pack("=I", 0xFFFFFFFF & ~(1 << _ICMP_REPLY))),
    6: (
        socket.IPPROTO_ICMPV6,
        1,
        struct.pack(
            "=8I", *(0xFFFFFFFF & ~(1 << _ICMP6_REPLY % 32 if word == _ICMP6_REPLY // 32 else 0) for word in range(8))
        ),
    ),
}
_ICMP_HEADER = struct.Struct("!BBHHH")
#: What a packet has before its payload, by the address's version: IP's header and ICMP's or UDP's.
HEADERS = {4: 28, 6: 48}


class Vantage:
    """One namespace. `addresses` are those at which UDP is answered; an async context manager."""

    def __init__(self, namespace: str, *addresses: str) -> None:
        self.namespace = namespace
        self.duplicates = 0
        self._addresses = addresses
        self._stack = AsyncExitStack()
        self._waiting: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._answered: set[tuple[int, int]] = set()
        self._sequence = 0
        self._pingers: dict[int, socket.socket] = {}

    async def __aenter__(self) -> Vantage:
        loop = asyncio.get_running_loop()
        pingers, listeners, answerers = layouts.within(self.namespace, self._open)
        for version, pinger in pingers.items():
            self._pingers[version] = pinger
            self._stack.callback(pinger.close)
            loop.add_reader(pinger, self._hear, version, pinger)
            self._stack.callback(loop.remove_reader, pinger)
        for listener in listeners:
            server = await asyncio.start_server(_echo, sock=listener)
            self._stack.push_async_callback(server.wait_closed)
            self._stack.callback(server.close)
        for answerer in answerers:
            transport, _ = await loop.create_datagram_endpoint(_Echo, sock=answerer)
            self._stack.callback(transport.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _open(self) -> tuple[dict[int, socket.socket], list[socket.socket], list[socket.socket]]:
        pingers, listeners, answerers = {}, [], []
        for version, family, protocol in (
            (4, socket.AF_INET, socket.IPPROTO_ICMP),
            (6, socket.AF_INET6, socket.IPPROTO_ICMPV6),
        ):
            pinger = pingers[version] = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
            pinger.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            pinger.setsockopt(*_REPLIES_ONLY[version])
            listeners.append(socket.create_server(("", _ECHO), family=family, backlog=200))
        for address in dict.fromkeys(self._addresses):
            answerer = socket.socket(_family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            answerer.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            answerer.bind((address, _ECHO))
            answerers.append(answerer)
        return pingers, listeners, answerers

    async def ping(self, address: str, size: int = 56, *, whole: bool = False) -> None:
        """One echo request with `size` bytes of payload, which nobody may fragment where `whole`. Raises TimeoutError
        where no answer comes, ValueError where another payload comes back, OSError where it cannot be sent."""
        version = 6 if ":" in address else 4
        self._sequence += 1
        key, payload = (version, self._sequence), os.urandom(size)
        future = self._waiting[key] = asyncio.get_running_loop().create_future()
        request = _ICMP6_REQUEST if version == 6 else _ICMP_REQUEST
        packet = _ICMP_HEADER.pack(request, 0, 0, os.getpid() & 0xFFFF, self._sequence) + payload
        if version == 4:
            packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
        pinger = self._pingers[version]
        pinger.setsockopt(
            socket.IPPROTO_IPV6 if version == 6 else socket.IPPROTO_IP,
            _DISCOVER[version],
            _DO if whole else _DONT,
        )
        try:
            pinger.sendto(packet, (address, 0))
            async with asyncio.timeout(PATIENCE):
                if await future != payload:
                    raise ValueError(f"{address} answered something else")
        finally:
            del self._waiting[key]
            self._answered.add(key)

    def _hear(self, version: int, pinger: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                packet = pinger.recv(1 << 16)
                if version == 4:
                    packet = packet[(packet[0] & 0x0F) * 4 :]
                kind, _, _, identifier, sequence = _ICMP_HEADER.unpack_from(packet)
                if kind != (_ICMP6_REPLY if version == 6 else _ICMP_REPLY) or identifier != os.getpid() & 0xFFFF:
                    continue
                future = self._waiting.get((version, sequence))
                if future is not None and not future.done():
                    future.set_result(packet[_ICMP_HEADER.size :])
                elif future is not None or (version, sequence) in self._answered:
                    self.duplicates += 1

    async def converse(self, address: str, size: int = 1 << 16, *, count: int = 1, port: int = _ECHO) -> None:
        """Send `size` bytes by TCP and get them back, over each of `count` connections at once. Raises TimeoutError,
        OSError, ValueError."""
        sockets = layouts.within(
            self.namespace,
            lambda: [socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(count)],
        )
        try:
            outcomes = await asyncio.gather(*(_conversation(each, (address, port), size) for each in sockets))
        finally:
            for each in sockets:
                each.close()
        if not all(outcomes):
            raise ValueError(f"{address} sent something else back")

    async def exchange(self, address: str, size: int) -> None:
        """Send one datagram of `size` bytes and get it back. Raises TimeoutError, OSError, ValueError."""
        loop, payload = asyncio.get_running_loop(), os.urandom(size)
        family = _family(address)
        with layouts.within(
            self.namespace, lambda: socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        ) as asking:
            asking.connect((address, _ECHO))
            async with asyncio.timeout(PATIENCE):
                await loop.sock_sendall(asking, payload)
                if await loop.sock_recv(asking, 1 << 16) != payload:
                    raise ValueError(f"{address} sent something else back")


class _Echo(asyncio.DatagramProtocol):
    """UDP's half of the echo service."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _conversation(opened: socket.socket, service: tuple[str, int], size: int) -> bool:
    loop, payload = asyncio.get_running_loop(), os.urandom(size)
    async with asyncio.timeout(PATIENCE):
        await loop.sock_connect(opened, service)
    async with asyncio.timeout(3 * PATIENCE):
        sending = asyncio.ensure_future(loop.sock_sendall(opened, payload))
        back = bytearray()
        while len(back) < size and (data := await loop.sock_recv(opened, 1 << 16)):
            back += data
        await sending
    return back == payload


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (
        data[-1] << 8 if len(data) & 1 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
