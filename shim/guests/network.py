"""What families whose stacks know less than Linux's make of a pod's network: one way out, some name servers."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from shim.errors import InvalidRequest
from shim.guests.base import Dns
from shim.network.view import GuestInterface


def name_servers(dns: Dns, version: int) -> tuple[str, ...]:
    """The servers of that version of IP, in their order. Raises InvalidRequest for what is no address."""
    found = []
    for server in dns.servers:
        try:
            address = ip_address(server)
        except ValueError as error:
            raise InvalidRequest(f"the name server {server!r} is no IP address", subject="dns") from error
        if address.version == version:
            found.append(server)
    return tuple(found)


def way_out(interfaces: Sequence[GuestInterface]) -> int | None:
    """The position of the interface whose IPv4 gateway is a guest's only one, None where none has any: for stacks that
    can be told one default gateway and no other route.

    The first that leads everywhere, else the first. Raises InvalidRequest where another leads to some networks only,
    which such a guest would look for behind the wrong gateway.
    """
    gates = [position for position, interface in enumerate(interfaces) if interface.gateway is not None]
    if not gates:
        return None
    everywhere = [position for position in gates if not _routes4(interfaces[position])]
    chosen = (everywhere or gates)[0]
    for position in gates:
        interface = interfaces[position]
        if position != chosen and _routes4(interface):
            raise InvalidRequest(
                f"the guest can be told one gateway only, and {_routes4(interface)[0]} is behind another,"
                f" {interface.gateway}",
                subject=interface.name,
                remedy="io.unikernel.nics can leave an interface out",
            )
    return chosen


def _routes4(interface: GuestInterface) -> list[str]:
    return [str(route) for route in interface.routes if route.version == 4]
