"""What needs a thread inside the namespace: devices' own files, and settings."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from shim.network.operations.base import LocalOperation

_SYSCTL = Path("/proc/sys")


class CreateTap(LocalOperation, frozen=True):
    """Make a tap with that interface index; see `tap.create_tap` for the options."""

    index: int
    link: str
    vnet_hdr: bool = False
    persistent: bool = False
    owner: int | None = None
    group: int | None = None

    def describe(self) -> str:
        extras = [word for word, on in (("vnet headers", self.vnet_hdr), ("persistent", self.persistent)) if on]
        return f"create tap {self.link}{' (' + ', '.join(extras) + ')' if extras else ''}"

    def run(self) -> int | None:
        # Imported here: what only plans or prints needs no device.
        from shim.network.kernel.tap import create_tap

        return create_tap(
            self.link,
            self.index,
            vnet_hdr=self.vnet_hdr,
            persistent=self.persistent,
            owner=self.owner,
            group=self.group,
        )

    def open(self) -> int:
        """A descriptor of the tap once it is there, persistent; see `tap.open_tap`."""
        from shim.network.kernel.tap import open_tap

        return open_tap(self.link, self.index, vnet_hdr=self.vnet_hdr)


class OpenMacvtap(LocalOperation, frozen=True):
    """Open the device of a macvtap; see `tap.open_macvtap`."""

    link: str
    vnet_hdr: bool = False

    def describe(self) -> str:
        return f"open macvtap {self.link}{' (vnet headers)' if self.vnet_hdr else ''}"

    def run(self) -> int | None:
        return self.open()

    def open(self) -> int:
        """A descriptor of the device; see `tap.open_macvtap`."""
        from shim.network.kernel.tap import open_macvtap

        return open_macvtap(self.link, vnet_hdr=self.vnet_hdr)


class SetSysctl(LocalOperation, frozen=True):
    """Write a setting; `key` is its path below /proc/sys."""

    settled = frozenset({errno.ENOENT})
    key: str
    value: str

    def describe(self) -> str:
        return f"set {self.key} to {self.value}"

    def run(self) -> int | None:
        descriptor = os.open(_SYSCTL / self.key, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, self.value.encode())
        finally:
            os.close(descriptor)
        return None
