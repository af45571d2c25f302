"""What a guest is told about its network: the one thing that guests and dataplanes must agree on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import msgspec


class GuestInterface(msgspec.Struct, frozen=True, kw_only=True):
    """One NIC as the guest should see it.

    `name` is the pod's interface that it stands for ("eth0"); `mac` is what the guest must use, in the usual
    colon-separated lower case; `mtu` is in bytes. `address` and `address6` carry the prefix the guest is told, which
    need not be the CNI plugin's; each is None where the interface has no address of that family. `gateway` is always
    inside `address`'s prefix; `gateway6` is inside `address6`'s or link-local, which IPv6 takes for on-link. A gateway
    is None where nothing of that family lies beyond the link. `routes` are the networks that the gateways lead to,
    where that is not everything: a stack that cannot tell sends the rest there too, and it is dropped there.
    """

    name: str
    mac: str
    mtu: int
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    address6: IPv6Interface | None = None
    gateway6: IPv6Address | None = None
    routes: tuple[IPv4Network | IPv6Network, ...] = ()
