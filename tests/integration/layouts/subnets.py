"""Layouts in which the pod has a subnet's prefix, and the subnet is on its link."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.integration.layouts.namespaces import configure, hasten, inside, ip, namespaces, sysctl
from tests.integration.layouts.site import PEER_MAC, POD_MAC, Site, Target, Wire
from tests.integration.layouts.surroundings import Surroundings, link_local, surroundings, targets

_POD, _PEER, _ROUTER = "10.88.0.2", "10.88.0.3", "10.88.0.1"
_POD6, _PEER6, _ROUTER6 = "fd00:88::2", "fd00:88::3", "fd00:88::1"


def _attach(place: Surroundings, pod: str, *addresses: str, routes: str = "", gateway: str = "") -> None:
    """Give a pod its addresses and bring it up."""
    lines = [f"addr add {address} {'' if ':' in address else 'brd +'} dev eth0" for address in addresses]
    lines.append("link set eth0 up")
    if gateway:
        lines.append(f"route add default via {gateway}")
    configure(pod, "\n".join(lines) + "\n" + routes)


@contextmanager
def bridged(area: str = "net", mtu: int = 1500, *, settled: bool = True, routes: str = "") -> Iterator[Site]:
    """The subnet layout, as the reference `bridge` plugin and docker leave it. `routes` are further lines for ip(8) in
    the pod."""
    with surroundings(area, mtu) as place:
        place.plug_both("vethpod", "vethpeer")
        place.bridge("cni0", f"{_ROUTER}/16", ports=("vethpod", "vethpeer"))
        _attach(place, place.pod, f"{_POD}/16", gateway=_ROUTER, routes=routes)
        _attach(place, place.peer, f"{_PEER}/16", gateway=_ROUTER)
        if settled:
            place.settle()
        yield Site(
            place.node, place.pod, place.peer, _POD, 16, _ROUTER, _ROUTER, _PEER, mtu=mtu,
            targets=targets(place, _POD, _ROUTER, _PEER),
            wires=(Wire(place.node, "vethpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def flannel(area: str = "net") -> Iterator[Site]:
    """Flannel's: the reference bridge with an MTU of 1450 (VXLAN's headers), and the cluster's pods behind it."""
    with bridged(area, 1450, routes=f"route add 10.244.0.0/16 via {_ROUTER}") as site:
        yield site


@contextmanager
def dual_stack(area: str = "net") -> Iterator[Site]:
    """Both families, a second address of each on the pod, and duplicate address detection as ever."""
    with surroundings(area) as place:
        place.plug_both("vethpod", "vethpeer")
        place.bridge("cni0", f"{_ROUTER}/16", f"{_ROUTER6}/64", ports=("vethpod", "vethpeer"))
        both = f"route add default via {_ROUTER6}"
        _attach(place, place.pod, f"{_POD}/16", "10.88.0.7/16", f"{_POD6}/64", gateway=_ROUTER, routes=both)
        # A further IPv6 address is put in front of those there are: add the first one last.
        configure(
            place.pod, f"addr del {_POD6}/64 dev eth0\naddr add fd00:88::7/64 dev eth0\naddr add {_POD6}/64 dev eth0"
        )
        configure(place.pod, f"route replace default via {_ROUTER6}")
        _attach(place, place.peer, f"{_PEER}/16", f"{_PEER6}/64", gateway=_ROUTER, routes=both)
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, _POD, 16, _ROUTER, _ROUTER, _PEER,
            address6=_POD6, prefix6=64, gateway6=_ROUTER6,
            targets=(*targets(place, _POD, _ROUTER, _PEER), *targets(place, _POD6, _ROUTER6, _PEER6)),
            wires=(Wire(place.node, "vethpod", (POD_MAC,)),),
            notes=(r"10\.88\.0\.7", "fd00:88::7"),
        )  # fmt: skip


def advertise(namespace: str, device: str, prefix: str) -> None:
    """Send one router advertisement (RFC 4861, 4.2) from a namespace: a default router that is there for half an hour,
    and an autonomous prefix."""
    subprocess.run(
        ["ip", "netns", "exec", namespace, "python3", "-c", _ADVERTISE, device, _advertisement(prefix).hex()],
        check=True,
    )


_ADVERTISE = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as wire:
    wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
    wire.sendto(bytes.fromhex(sys.argv[2]), ("ff02::1", 0, 0, socket.if_nametoindex(sys.argv[1])))
"""


def _advertisement(prefix: str) -> bytes:
    network, _, length = prefix.partition("/")
    head = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    option = struct.pack(
        "!BBBBIII16s", 3, 4, int(length), 0xC0, 3600, 1800, 0, socket.inet_pton(socket.AF_INET6, network)
    )
    return head + option


@contextmanager
def advertised(area: str = "net") -> Iterator[Site]:
    """IPv6 by stateless autoconfiguration (RFC 4862) beside a configured IPv4 address: an address with a lifetime, and
    a default route by the router's advertisement."""
    with surroundings(area) as place:
        place.plug_both("vethpod", "vethpeer")
        place.bridge("cni0", f"{_ROUTER}/16", f"{_ROUTER6}/64", ports=("vethpod", "vethpeer"))
        _attach(place, place.pod, f"{_POD}/16", gateway=_ROUTER)
        _attach(place, place.peer, f"{_PEER}/16", gateway=_ROUTER)
        place.settle()
        advertise(place.node, "cni0", "fd00:88::/64")
        place.settle()
        own, peer = "fd00:88::5eff:fe10:2", "fd00:88::5eff:fe10:3"
        yield Site(
            place.node, place.pod, place.peer, _POD, 16, _ROUTER, _ROUTER, _PEER,
            address6=own, prefix6=64, gateway6=link_local(place.node, "cni0"),
            targets=(*targets(place, _POD, _ROUTER, _PEER), *targets(place, own, _ROUTER6, peer)),
            wires=(Wire(place.node, "vethpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def ipv6_only(area: str = "net") -> Iterator[Site]:
    """IPv6 alone: a /64 whose router is known by its link-local address."""
    with surroundings(area) as place:
        place.plug_both("vethpod", "vethpeer")
        place.bridge("cni0", f"{_ROUTER6}/64", ports=("vethpod", "vethpeer"))
        gateway = link_local(place.node, "cni0")
        routes = f"route add default via {gateway} dev eth0"
        _attach(place, place.pod, f"{_POD6}/64", routes=routes)
        _attach(place, place.peer, f"{_PEER6}/64", routes=routes)
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, "", 0, "", "", "",
            address6=_POD6, prefix6=64, gateway6=gateway,
            targets=targets(place, _POD6, _ROUTER6, _PEER6),
            wires=(Wire(place.node, "vethpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def _secured(area: str, mtu: int, prefix: int, mac: str, routes: str) -> Iterator[Site]:
    own, peer, router = "10.128.2.9", "10.128.2.10", "10.128.2.1"
    with surroundings(area, mtu) as place:
        place.plug("vethpod", mac=mac)
        place.plug("vethpeer", pod=place.peer, mac=PEER_MAC)
        # The overlay's headers take the difference on the node's own links, which are larger.
        place.bridge("br-int", f"{router}/{prefix}", ports=("vethpod", "vethpeer"))
        _attach(place, place.pod, f"{own}/{prefix}", gateway=router, routes=routes)
        _attach(place, place.peer, f"{peer}/{prefix}", gateway=router)
        place.settle()
        place.guard("vethpod", mac, own, link_local(place.pod, "eth0"))
        yield Site(
            place.node, place.pod, place.peer, own, prefix, router, router, peer, mac=mac, mtu=mtu,
            targets=targets(place, own, router, peer),
            wires=(Wire(place.node, "vethpod", (mac,)),),
        )  # fmt: skip


@contextmanager
def ovn_kubernetes(area: str = "net") -> Iterator[Site]:
    """OVN-Kubernetes': a MAC made from the address, cluster and service networks by routes of their own, and a switch
    port that drops whatever has another source. The switch is emulated by a bridge and a netdev filter."""
    routes = "route add 10.128.0.0/14 via 10.128.2.1\nroute add 172.30.0.0/16 via 10.128.2.1"
    with _secured(area, 1400, 23, "0a:58:0a:80:02:09", routes) as site:
        yield site


@contextmanager
def antrea(area: str = "net") -> Iterator[Site]:
    """Antrea's: a /24, MTU 1450, and its spoof guard; emulated as OVN's is."""
    with _secured(area, 1450, 24, POD_MAC, "") as site:
        yield site


@contextmanager
def onlink_gateway(area: str = "net") -> Iterator[Site]:
    """A gateway outside the pod's prefix, which the route says is on the link all the same."""
    gateway = "198.51.100.1"
    with surroundings(area) as place:
        place.plug_both("vethpod", "vethpeer")
        # The pods' router has no address of their subnet: it knows them by routes.
        place.bridge("cni0", f"{gateway}/32", ports=("vethpod", "vethpeer"))
        configure(place.node, "route add 10.88.0.0/16 dev cni0")
        routes = f"route add default via {gateway} dev eth0 onlink"
        _attach(place, place.pod, f"{_POD}/16", routes=routes)
        _attach(place, place.peer, f"{_PEER}/16", routes=routes)
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, _POD, 16, gateway, gateway, _PEER,
            targets=targets(place, _POD, gateway, _PEER),
            wires=(Wire(place.node, "vethpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def several_gateways(area: str = "net") -> Iterator[Site]:
    """Static routes by another router of the subnet, in both families, with metrics and preferred sources; and a spare
    default route that is never used."""
    with bridged(area) as site, namespaces("branch", area=area) as (branch,):
        place = Surroundings(site.node, site.pod, site.peer, "", 1500)
        place.plug("vethbranch", pod=branch, mac="02:00:5e:10:00:09")
        sysctl(branch, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        configure(
            site.node,
            f"""link set vethbranch master cni0
            addr add {_ROUTER6}/64 dev cni0 nodad""",
        )
        configure(
            branch,
            f"""addr add 10.88.0.9/16 dev eth0
            addr add fd00:88::9/64 dev eth0 nodad
            link set eth0 up
            route add default via {_ROUTER}
            route add default via {_ROUTER6}
            addr add 10.20.0.1/32 dev lo
            addr add fd00:20::1/128 dev lo""",
        )
        for pod, own6 in ((site.pod, _POD6), (site.peer, _PEER6)):
            configure(
                pod,
                f"""addr add {own6}/64 dev eth0
                route add default via {_ROUTER6} metric 100
                route add fd00:20::/48 via fd00:88::9 metric 10""",
            )
        configure(
            site.pod,
            f"""route del default
            route add default via {_ROUTER} metric 100 src {_POD}
            route add default via 10.88.0.9 metric 200
            route add 10.20.0.0/16 via 10.88.0.9 metric 10 src {_POD}
            route add 10.20.0.0/16 via {_ROUTER} metric 20
            route add 10.20.128.0/17 via {_ROUTER}""",
        )
        place.settle()
        six = replace(place, world=site.targets[2].namespace)
        yield replace(
            site,
            address6=_POD6,
            prefix6=64,
            gateway6=_ROUTER6,
            targets=(
                *site.targets,
                *targets(six, _POD6, _ROUTER6, _PEER6),
                Target("branch", branch, "10.20.0.1", _POD),
                Target("branch", branch, "fd00:20::1", _POD6),
            ),
            notes=("spare one",),
        )


@contextmanager
def refusing_routes(area: str = "net") -> Iterator[Site]:
    """Destinations that the pod may not reach: they answer anybody else."""
    forbidden = ("10.30.0.1", "10.31.0.1", "10.32.0.1")
    routes = "blackhole 10.30.0.0/16\nunreachable 10.31.0.0/16\nprohibit 10.32.0.0/16"
    with bridged(area, routes="\n".join(f"route add {route}" for route in routes.splitlines())) as site:
        configure(site.node, "\n".join(f"addr add {address}/32 dev lo" for address in forbidden))
        yield replace(site, forbidden=forbidden, notes=(r"10\.30\.0\.0/16 is dropped, as a route says",))


@contextmanager
def no_default(area: str = "net") -> Iterator[Site]:
    """A subnet and nothing beyond it."""
    with bridged(area) as site:
        ip("route", "del", "default", namespace=site.pod)
        yield replace(site, gateway="", targets=site.targets[:2])


@contextmanager
def macvlan(area: str = "net") -> Iterator[Site]:
    """The reference `macvlan` plugin's: pods are on the node's LAN by devices that share their parent's wire, and take
    no frames but those for their own MAC. The LAN is a bridge behind a veth here."""
    with surroundings(area) as place:
        place.bridge("lan", f"{_ROUTER}/16", f"{_ROUTER6}/64")
        configure(
            place.node,
            "link add nic type veth peer name nicport\nlink set nicport master lan up\nlink set nic up",
        )
        inside(place.node, "sysctl", "-qw", "net.ipv6.conf.nic.disable_ipv6=1")
        for name, mac, pod, own, own6 in (
            ("macpod", POD_MAC, place.pod, _POD, _POD6),
            ("macpeer", PEER_MAC, place.peer, _PEER, _PEER6),
        ):
            configure(
                place.node,
                f"""link add {name} link nic address {mac} type macvlan mode bridge
                link set {name} netns {pod} name eth0""",
            )
            hasten(pod, "eth0")
            routes = f"route add default via {_ROUTER6}"
            _attach(place, pod, f"{own}/16", f"{own6}/64", gateway=_ROUTER, routes=routes)
        place.settle()
        unsuited = "macvlan"
        yield Site(
            place.node, place.pod, place.peer, _POD, 16, _ROUTER, _ROUTER, _PEER,
            address6=_POD6, prefix6=64, gateway6=_ROUTER6,
            targets=(*targets(place, _POD, _ROUTER, _PEER), *targets(place, _POD6, _ROUTER6, _PEER6)),
            wires=(Wire(place.node, "nicport", (POD_MAC, PEER_MAC)),),
            refusals={"bridge": unsuited, "macvtap": unsuited},
        )  # fmt: skip
