"""A guest double: a second namespace with a real kernel stack behind the tap that the shim hands over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from shim.network.namespace import open_namespace
from shim.network.tap import close_tap, create_tap
from shim.network.view import GuestInterface
from tests.integration import layouts


@asynccontextmanager
async def guest_behind(tap: int, told: GuestInterface) -> AsyncIterator[str]:
    """A guest double: a namespace with a real stack that knows only what the guest is told, its frames relayed."""
    with layouts.namespaces("guest") as (name,):
        namespace = await open_namespace(Path("/run/netns") / name)
        inner = await namespace.run(lambda: create_tap("eth0", 77))
        namespace.close()
        layouts.ip("link", "set", "eth0", "address", told.mac, "mtu", str(told.mtu), "up", namespace=name)
        layouts.ip("addr", "add", str(told.address), "dev", "eth0", namespace=name)
        if told.gateway is not None:
            layouts.ip("route", "add", "default", "via", str(told.gateway), namespace=name)
        loop = asyncio.get_running_loop()

        def relay(source: int, target: int) -> None:
            with suppress(BlockingIOError):
                while True:
                    os.write(target, os.read(source, 1 << 16))

        loop.add_reader(tap, relay, tap, inner)
        loop.add_reader(inner, relay, inner, tap)
        try:
            yield name
        finally:
            loop.remove_reader(tap)
            loop.remove_reader(inner)
            await close_tap(inner)
