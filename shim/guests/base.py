"""The contract between the shim and one unikernel family: what its command line says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from shim.network.view import GuestInterface


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a guest may be told.

    `arguments` are the container's own process arguments after the kernel's path was taken off; `environment` maps
    names to values; `cmdline` is the image's or pod's verbatim addition (`io.unikernel.cmdline`); `interfaces` are in
    the pod's order.
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    hostname: str = ""
    cmdline: str = ""
    interfaces: tuple[GuestInterface, ...] = ()


class Guest(Protocol):
    """One unikernel family's grammar."""

    name: str

    def words(self, spec: GuestSpec) -> tuple[str, ...]:
        """The guest's command line as words, quoted in its own grammar; a monitor that takes one string joins them with
        spaces.

        Raises InvalidRequest where the grammar cannot express a value, naming the value.
        """
        ...
