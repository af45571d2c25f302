"""What a guest is told about its network: the one thing that guests and dataplanes must agree on."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import msgspec


class GuestInterface(msgspec.Struct, frozen=True, kw_only=True):
    """One NIC as the guest should see it.

    `name` is the pod's interface that it stands for ("eth0"); `mac` is what the guest must use, in the usual
    colon-separated lower case; `address` carries the prefix the guest is told, which need not be the CNI plugin's;
    `gateway` is always inside that prefix and is None only where the pod has no default route; `mtu` is in bytes.
    """

    name: str
    mac: str
    mtu: int
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
