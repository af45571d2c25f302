"""What every layout stands in: a node that forwards, the world behind it, the pod, and another pod."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.layouts.namespaces import configure, hasten, inside, ip, namespaces, settle, sysctl
from tests.integration.layouts.site import PEER_MAC, POD_MAC, Target

#: The world's addresses, and the node's on the way there (RFC 5737, RFC 3849).
WORLD, WORLD6 = "192.0.2.254", "2001:db8:ffff::fe"
#: Indexes of the node's devices. A veth whose peer has the same index passes for a real device with the kernel
#: (link_watch.c), which then lets it wait for up to a second before it is operational.
_indexes = itertools.count(100)
_ROUTERS = ("all.forwarding=1", "default.accept_dad=0", "all.accept_dad=0")
NODE, NODE6 = "192.0.2.1", "2001:db8:ffff::1"


@dataclass(frozen=True)
class Surroundings:
    """Namespaces by name. `mtu` is of everything that is made here, in bytes."""

    node: str
    pod: str
    peer: str
    world: str
    mtu: int

    def plug(
        self,
        outside: str,
        *,
        pod: str = "",
        mac: str = POD_MAC,
        name: str = "eth0",
        outside_mac: str = "",
        mtu: int = 0,
    ) -> None:
        """A veth from the node's `outside`, which is up afterwards, to `name` in the pod, which is not yet."""
        pod = pod or self.pod
        size = str(mtu or self.mtu)
        given = ("address", outside_mac) if outside_mac else ()
        ip("link", "add", outside, "index", str(next(_indexes)), *given, "mtu", size, "type", "veth",
           "peer", "name", name, "address", mac, "mtu", size, "netns", pod, namespace=self.node)  # fmt: skip
        hasten(pod, name)
        ip("link", "set", outside, "up", namespace=self.node)

    def plug_both(self, pod: str, peer: str, *, outside_mac: str = "") -> None:
        """The pod's and the peer's eth0."""
        self.plug(pod, outside_mac=outside_mac)
        self.plug(peer, pod=self.peer, mac=PEER_MAC, outside_mac=outside_mac)

    def bridge(self, name: str, *addresses: str, ports: tuple[str, ...] = ()) -> None:
        """A bridge of the node with addresses of its own."""
        lines = [f"link add {name} mtu {self.mtu} type bridge", f"link set {name} up"]
        lines += [f"addr add {address} dev {name}{' nodad' if ':' in address else ''}" for address in addresses]
        lines += [f"link set {port} master {name}" for port in ports]
        configure(self.node, "\n".join(lines))

    def guard(self, device: str, mac: str, *addresses: str) -> None:
        """Port security: nothing enters the node by that device but frames from that MAC and those addresses."""
        fourth = ", ".join(address for address in addresses if ":" not in address)
        sixth = ", ".join(("::", *(address for address in addresses if ":" in address)))
        rules = f"""table netdev guard {{
            chain port {{
                type filter hook ingress device "{device}" priority 0; policy accept;
                ether saddr != {mac} drop
                arp saddr ether != {mac} drop
                arp saddr ip != {{ {fourth} }} drop
                ip saddr != {{ {fourth} }} drop
                ip6 saddr != {{ {sixth} }} drop
            }}
        }}
        """
        subprocess.run(["ip", "netns", "exec", self.node, "nft", "-f", "-"], input=rules, text=True, check=True)

    def settle(self) -> None:
        """Wait for both pods' addresses."""
        settle(self.pod)
        settle(self.peer)


@contextmanager
def surroundings(area: str, mtu: int = 1500) -> Iterator[Surroundings]:
    """The four namespaces; the node has a default route to the world, as every node has, and the world one back. No
    address of the node's is tentative for a moment."""
    with namespaces("node", "pod", "peer", "world", area=area) as (node, pod, peer, world):
        for router in (node, world):
            # Forwarding first: it makes the kernel a router, which neither solicits nor believes others.
            sysctl(router, "net.ipv4.ip_forward=1", *(f"net.ipv6.conf.{name}" for name in _ROUTERS))
        size = f"mtu {mtu}"
        configure(node, f"link add uplink index {next(_indexes)} {size} type veth peer name eth0 {size} netns {world}")
        for name, device, own, own6, other, other6 in (
            (node, "uplink", NODE, NODE6, WORLD, WORLD6),
            (world, "eth0", WORLD, WORLD6, NODE, NODE6),
        ):
            configure(
                name,
                f"""addr add {own}/24 dev {device}
                addr add {own6}/64 dev {device} nodad
                link set {device} up
                route add default via {other}
                route add default via {other6}""",
            )
        yield Surroundings(node, pod, peer, world, mtu)


def targets(place: Surroundings, own: str, router: str, peer: str) -> tuple[Target, ...]:
    """The three that most layouts have, for one family: `own` is the pod's address."""
    beyond = WORLD6 if ":" in own else WORLD
    return (
        Target("router", place.node, router, own),
        Target("peer", place.peer, peer, own),
        Target("beyond", place.world, beyond, own),
    )


def link_local(namespace: str, device: str) -> str:
    """A device's link-local address."""
    words = inside(namespace, "ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link").stdout.split()
    return words[words.index("inet6") + 1].partition("/")[0]
