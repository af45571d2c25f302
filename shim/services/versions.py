"""Which containerd is at an address: asked once, remembered until the socket is another one."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable

from shim import log
from shim.errors import ShimError

_log = log.get(__name__)


def parse(text: str) -> tuple[int, int]:
    """Major and minor of "1.7.24~ds1" or "v2.1.9"; (0, 0) for anything else."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Versions:
    """Versions by address. An upgraded containerd makes a new socket, so the inode is part of the key."""

    def __init__(self, ask: Callable[[str], Awaitable[str]]) -> None:
        """`ask` gives the version text of the containerd at a gRPC address, or raises a ShimError."""
        self._ask = ask
        self._known: dict[tuple[str, int], tuple[int, int]] = {}

    async def of(self, address: str) -> tuple[int, int]:
        """Major and minor; (0, 0) when there is no address or no answer."""
        if not address:
            return 0, 0
        try:
            key = address, os.stat(address.removeprefix("unix://")).st_ino  # noqa: PTH116 - neither blocks nor walks
            if key not in self._known:
                self._known[key] = parse(await self._ask(address))
            return self._known[key]
        except (OSError, ShimError) as error:
            _log.warning("containerd did not say its version", address=address, error=str(error))
            return 0, 0
