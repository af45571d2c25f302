"""A Linux guest's network, as words of the kernel's command line.

One IPv4 address and two name servers are what the kernel's own `ip=` can say (nfs/nfsroot.rst; it writes the servers to
/proc/net/pnp, in the form of resolv.conf). More NICs, IPv6, and other name servers are said in the grammar of
dracut.cmdline(7) and systemd-network-generator(8), of which the kernel's is a part; the guest's user space reads that
from /proc/cmdline. None of them has a word for search domains.

A kernel with CONFIG_IP_PNP reads those words too, as if each were its own: it splits them at every colon, and what is
not empty overwrites what an earlier word said (net/ipv4/ipconfig.c, ip_auto_config_setup()). So the first NIC's IPv4 is
the last `ip=`, and behind it stands all of it again as `nfsaddrs=`, with the zeros that make the kernel forget: its
other name for `ip=` (nfs/nfsroot.rst), which nobody else reads.
"""

from __future__ import annotations

import re

from shim.errors import InvalidRequest
from shim.guests.base import Dns
from shim.guests.network import name_servers
from shim.network.view import GuestInterface

_ZERO = "0.0.0.0"  # noqa: S104 - to ipconfig.c it is "none"; an empty field is "as before"
# The name servers that `ip=` has fields for (nfs/nfsroot.rst, dns0-ip and dns1-ip).
_OWN_SERVERS = 2


def words(interfaces: tuple[GuestInterface, ...], hostname: str, dns: Dns) -> list[str]:
    """Names, addresses, gateways, name servers. A NIC without an address is not spoken of: it is there all the same.

    Raises InvalidRequest for a hostname or a name server that cannot be told.
    """
    if not interfaces:
        return []
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", hostname):
        raise InvalidRequest(f"the hostname {hostname!r} cannot be told to a Linux kernel", subject="hostname")
    others: list[str] = []
    for position, interface in enumerate(interfaces):
        # What the first NIC's own word has no field for; the device says its MTU too (virtio, VIRTIO_NET_F_MTU).
        rest = f"{hostname if position == 0 else ''}:eth{position}:none:{interface.mtu}"
        if interface.address6 is not None:
            gateway = f"[{interface.gateway6}]" if interface.gateway6 and _leads_everywhere(interface, 6) else ""
            address, prefix = interface.address6.ip, interface.address6.network.prefixlen
            others.append(f"ip=[{address}]::{gateway}:{prefix}:{rest}")
        if interface.address is not None and position > 0:
            others.append(f"ip={_address4(interface)}:{rest}")
        others += _routes(interface, f"eth{position}")
    # Names follow MACs, in whatever order the guest finds its NICs.
    names = [f"ifname=eth{position}:{interface.mac}" for position, interface in enumerate(interfaces)]
    first = interfaces[0]
    own = name_servers(dns, 4)[:_OWN_SERVERS] if first.address is not None else ()
    found = [*(names if len(names) > 1 else ()), *others]
    found += [f"nameserver={server}" for server in (*name_servers(dns, 4)[len(own) :], *name_servers(dns, 6))]
    if first.address is not None:
        # systemd-network-generator refuses a word that ends with a colon.
        found.append(":".join((f"ip={_address4(first)}:{hostname}:eth0:off", *own)))
    if others:
        found.append(":".join((f"nfsaddrs={_again(first, hostname)}", *own)))
    return found


def _leads_everywhere(interface: GuestInterface, version: int) -> bool:
    """Whether the gateway of that version of IP is the way to everything, and not to `routes` only."""
    return not any(route.version == version for route in interface.routes)


def _routes(interface: GuestInterface, device: str) -> list[str]:
    """`rd.route=network:gateway:device`, which the kernel takes for a module's parameter and leaves alone."""
    found = []
    for route in interface.routes:
        gateway = interface.gateway if route.version == 4 else interface.gateway6
        if gateway is not None:
            network, via = (str(route), str(gateway)) if route.version == 4 else (f"[{route}]", f"[{gateway}]")
            found.append(f"rd.route={network}:{via}:{device}")
    return found


def _address4(interface: GuestInterface) -> str:
    """`client:server:gateway:netmask`."""
    assert interface.address is not None
    gateway = interface.gateway if interface.gateway and _leads_everywhere(interface, 4) else ""
    return f"{interface.address.ip}::{gateway}:{interface.address.netmask}"


def _again(first: GuestInterface, hostname: str) -> str:
    """What the kernel itself is to know in the end. It has no word for a gateway that does not lead everywhere."""
    if first.address is None:
        return "off"
    gateway = first.gateway or _ZERO
    return f"{first.address.ip}:{_ZERO}:{gateway}:{first.address.netmask}:{hostname or 'localhost'}:eth0:off"
