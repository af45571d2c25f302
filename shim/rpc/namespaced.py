"""A ttrpc door for each containerd namespace, for a containerd that does not say which one it means.

containerd 1.6 knows one shim per namespace and sends no metadata with its calls (seen on 1.6.20): there the connection
itself must say the namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from shim.rpc.service import Service
from shim.rpc.ttrpc_server import TtrpcServer


class NamespacedDoors:
    """Sockets made on first use, one a namespace, in a directory of their own."""

    def __init__(self, directory: Path, services: Iterable[Service]) -> None:
        self._directory = directory
        self._services = tuple(services)
        self._servers: dict[str, TtrpcServer] = {}
        self._opening = asyncio.Lock()

    async def path(self, namespace: str) -> Path:
        """The namespace's socket, listening. Raises NodeFault, and InvalidRequest when its path would be too long."""
        path = self._directory / namespace
        async with self._opening:
            if namespace not in self._servers:
                server = TtrpcServer(self._services, namespace)
                await server.start(path)
                self._servers[namespace] = server
        return path

    async def stop(self, grace: float) -> None:
        """Stop them all, as `TtrpcServer.stop`."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers.values()))
        self._servers.clear()
