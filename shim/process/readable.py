"""Waiting for a descriptor on the event loop."""

from __future__ import annotations

import asyncio


async def readable(descriptor: int) -> None:
    """Return once something can be read, or end of file: of a pidfd, once its process is dead (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Return once something can be written, or nobody will read it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
