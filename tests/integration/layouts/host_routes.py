"""Layouts in which the pod's link has nobody on it but a router: the node knows each pod by a route of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.integration.layouts.namespaces import configure, ip, sysctl
from tests.integration.layouts.site import (
    CALICO_LINK_LOCAL,
    CALICO_MAC,
    PEER_MAC,
    POD_MAC,
    Site,
    Wire,
)
from tests.integration.layouts.surroundings import NODE, NODE6, Surroundings, link_local, surroundings, targets

_NEXT_HOP = "169.254.1.1"
_PEER = "10.244.7.133"
_POD6, _PEER6 = "fd00:77::2", "fd00:77::3"


def _host_routes(place: Surroundings, *pairs: tuple[str, str]) -> None:
    """Routes of the node, as (address, device)."""
    configure(
        place.node,
        "\n".join(f"route add {own} dev {device}" for own, device in pairs if own),
    )


def _proxies(place: Surroundings, *devices: str) -> None:
    """Let the node answer ARP for whatever it would route elsewhere."""
    for device in devices:
        sysctl(place.node, f"net.ipv4.conf.{device}.proxy_arp=1", f"net.ipv4.neigh.{device}.proxy_delay=0")


def _single(pod: str, own: str, own6: str = "", *, name: str = "eth0", gateway6: str = "") -> None:
    """An address of its own and a default route by a router that is on the link because the route says so."""
    lines = []
    if own:
        lines += [f"addr add {own}/32 dev {name}"]
    if own6:
        lines += [f"addr add {own6}/128 dev {name} nodad"]
    lines += [f"link set {name} up"]
    if own:
        lines += [f"route add {_NEXT_HOP} dev {name} scope link", f"route add default via {_NEXT_HOP} dev {name}"]
    if own6:
        lines += [f"route add default via {gateway6 or CALICO_LINK_LOCAL} dev {name}"]
    configure(pod, "\n".join(lines))


@contextmanager
def routed(area: str = "net", mtu: int = 1500, pod_address: str = "10.244.7.130") -> Iterator[Site]:
    """The /32 layout, as Calico leaves it: an off-link gateway answered by proxy ARP, and on the node a blackhole
    route for the block that the pod's address is from."""
    with surroundings(area, mtu) as place:
        configure(place.node, "route add blackhole 10.244.7.128/26")
        place.plug_both("calipod", "calipeer", outside_mac=CALICO_MAC)
        _proxies(place, "calipod", "calipeer")
        _single(place.pod, pod_address)
        _single(place.peer, _PEER)
        _host_routes(place, (pod_address, "calipod"), (_PEER, "calipeer"))
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, pod_address, 32, _NEXT_HOP, NODE, _PEER, mtu=mtu,
            targets=targets(place, pod_address, NODE, _PEER),
            notes=("out of the guest's reach",),
            wires=(Wire(place.node, "calipod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def calico_dual_stack(area: str = "net", *, pinned: bool = False) -> Iterator[Site]:
    """Calico with IPv6: a /128 without duplicate address detection, and the host veth's link-local address as router.
    `pinned`: Felix holds the pod's MAC in permanent neighbour entries of the node, so that any other is cut off."""
    own = "10.244.7.130"
    with surroundings(area) as place:
        configure(place.node, "route add blackhole 10.244.7.128/26\nroute add blackhole fd00:77::/122")
        place.plug_both("calipod", "calipeer", outside_mac=CALICO_MAC)
        _proxies(place, "calipod", "calipeer")
        sysctl(place.pod, "net.ipv6.conf.eth0.accept_dad=0")
        _single(place.pod, own, _POD6)
        _single(place.peer, _PEER, _PEER6)
        _host_routes(place, (own, "calipod"), (_PEER, "calipeer"), (_POD6, "calipod"), (_PEER6, "calipeer"))
        if pinned:
            configure(
                place.node,
                "\n".join(f"neigh add {each} lladdr {POD_MAC} dev calipod nud permanent" for each in (own, _POD6)),
            )
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, own, 32, _NEXT_HOP, NODE, _PEER,
            address6=_POD6, prefix6=128, gateway6=CALICO_LINK_LOCAL,
            targets=(*targets(place, own, NODE, _PEER), *targets(place, _POD6, NODE6, _PEER6)),
            wires=(Wire(place.node, "calipod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def calico_pinned(area: str = "net") -> Iterator[Site]:
    """Calico where Felix pins the pod's MAC."""
    with calico_dual_stack(area, pinned=True) as site:
        yield site


def _pin(pod: str, name: str, mac: str, *addresses: str) -> None:
    lines = (f"neigh add {address} lladdr {mac} dev {name} nud permanent" for address in addresses)
    configure(pod, "\n".join(lines))


@contextmanager
def aws(area: str = "net") -> Iterator[Site]:
    """The AWS VPC plugin's: jumbo frames, and a router that answers nobody: permanent neighbour entries of the pod
    hold the host veth's MAC for its IPv4 and its IPv6 address, neither of which the node has."""
    own, outside = "10.244.7.130", "0a:00:5e:00:00:11"
    with surroundings(area, 9001) as place:
        place.plug("enipod", outside_mac=outside)
        place.plug("enipeer", pod=place.peer, mac=PEER_MAC, outside_mac=outside)
        for pod, address, address6 in ((place.pod, own, _POD6), (place.peer, _PEER, _PEER6)):
            _single(pod, address, address6, gateway6="fe80::1")
            _pin(pod, "eth0", outside, _NEXT_HOP, "fe80::1")
        _host_routes(place, (own, "enipod"), (_PEER, "enipeer"), (_POD6, "enipod"), (_PEER6, "enipeer"))
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, own, 32, _NEXT_HOP, NODE, _PEER, mtu=9001,
            address6=_POD6, prefix6=128, gateway6="fe80::1",
            targets=(*targets(place, own, NODE, _PEER), *targets(place, _POD6, NODE6, _PEER6)),
            wires=(Wire(place.node, "enipod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def aws_second_nic(area: str = "net") -> Iterator[Site]:
    """AWS's pods with a second network card: its address, gateway and routes are in a table of their own, chosen by a
    rule on the source."""
    second, second6, mac, hop = "10.244.9.20", "fd00:77::9:20", "02:00:5e:10:00:22", "169.254.1.2"
    owners = {4: second, 6: second6}
    with aws(area) as site:
        place = Surroundings(site.node, site.pod, site.peer, site.targets[2].namespace, 9001)
        place.plug("enipod1", mac=mac, name="eth1", outside_mac="0a:00:5e:00:00:12")
        configure(
            site.pod,
            f"""addr add {second}/32 dev eth1
            link set eth1 up
            route add {hop} dev eth1 scope link table 2
            route add default via {hop} dev eth1 table 2
            rule add from {second} lookup 2
            addr add {second6}/128 dev eth1 nodad
            route add ::/0 via fe80::1 dev eth1 table 2""",
        )
        ip("-6", "rule", "add", "from", second6, "lookup", "2", namespace=site.pod)
        _pin(site.pod, "eth1", "0a:00:5e:00:00:12", hop, "fe80::1")
        _host_routes(place, (second, "enipod1"), (second6, "enipod1"))
        place.settle()
        yield replace(
            site,
            interfaces=("eth0", "eth1"),
            targets=(
                *site.targets,
                *(replace(target, own=owners[target.version], interface="eth1") for target in site.targets),
            ),
            wires=(*site.wires, Wire(site.node, "enipod1", (mac,))),
        )


@contextmanager
def azure(area: str = "net") -> Iterator[Site]:
    """Azure's transparent mode: a subnet's prefix without its connected route, and both a permanent neighbour entry and
    proxy ARP for the router."""
    own, peer, outside = "10.240.0.21", "10.240.0.22", "aa:aa:aa:aa:aa:aa"
    with surroundings(area) as place:
        place.plug_both("azvpod", "azvpeer", outside_mac=outside)
        _proxies(place, "azvpod", "azvpeer")
        for pod, address in ((place.pod, own), (place.peer, peer)):
            configure(
                pod,
                f"""addr add {address}/16 dev eth0
                link set eth0 up
                route del 10.240.0.0/16 dev eth0
                route add {_NEXT_HOP} dev eth0 scope link
                route add default via {_NEXT_HOP} dev eth0""",
            )
            _pin(pod, "eth0", outside, _NEXT_HOP)
        _host_routes(place, (own, "azvpod"), (peer, "azvpeer"))
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, own, 16, _NEXT_HOP, NODE, peer,
            targets=targets(place, own, NODE, peer),
            wires=(Wire(place.node, "azvpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def cilium(area: str = "net") -> Iterator[Site]:
    """Cilium's veth mode: routes by the node's own address, a smaller MTU on the routes than on the link, and a node
    that drops any other source.

    Cilium's program at the host's veth answers every ARP request and solicitation but those for the pod's own address.
    Proxy ARP and a proxied neighbour do the same here, and a netdev filter checks sources.
    """
    own, host, host6, size = "10.0.1.130", "10.0.1.53", "fd00:77::53", 1450
    with surroundings(area) as place:
        place.plug_both("lxcpod", "lxcpeer")
        _proxies(place, "lxcpod", "lxcpeer")
        configure(place.node, f"addr add {host}/32 dev lo\naddr add {host6}/128 dev lo")
        # Pods are sent no more than their routes' MTU either: the other ends of the tunnel see to that.
        configure(
            place.world,
            f"""route replace default via {NODE} mtu {size}
            route del ::/0
            route add ::/0 via {NODE6} mtu {size}""",
        )
        for pod, address, address6, device in (
            (place.pod, own, _POD6, "lxcpod"),
            (place.peer, "10.0.1.133", _PEER6, "lxcpeer"),
        ):
            sysctl(place.node, f"net.ipv6.conf.{device}.proxy_ndp=1", f"net.ipv6.neigh.{device}.proxy_delay=0")
            configure(
                pod,
                f"""addr add {address}/32 dev eth0
                addr add {address6}/128 dev eth0 nodad
                link set eth0 up
                route add {host} dev eth0 scope link
                route add default via {host} dev eth0 mtu {size}
                route add {host6} dev eth0
                route add default via {host6} dev eth0 mtu {size}""",
            )
            configure(
                place.node,
                f"""neigh add proxy {host6} dev {device}
                route add {address} dev {device} mtu {size}
                route add {address6} dev {device} mtu {size}""",
            )
        place.settle()
        place.guard("lxcpod", POD_MAC, own, _POD6, link_local(place.pod, "eth0"))
        yield Site(
            place.node, place.pod, place.peer, own, 32, host, NODE, "10.0.1.133", mtu=size,
            address6=_POD6, prefix6=128, gateway6=host6,
            targets=(*targets(place, own, host, "10.0.1.133"), *targets(place, _POD6, host6, _PEER6)),
            wires=(Wire(place.node, "lxcpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def pointed(area: str = "net", mtu: int = 1500, *, dual_stack: bool = False) -> Iterator[Site]:
    """The reference `ptp` plugin's layout: a subnet's prefix whose connected route is taken away, and a host veth that
    owns the gateway's address and proxies nothing."""
    own, peer, router, own6, peer6, router6 = (
        "10.89.0.18", "10.89.0.19", "10.89.0.1", "fd00:89::12", "fd00:89::13", "fd00:89::1",
    )  # fmt: skip
    with surroundings(area, mtu) as place:
        place.plug_both("ptppod", "ptppeer")
        for pod, address, address6, device in (
            (place.pod, own, own6, "ptppod"),
            (place.peer, peer, peer6, "ptppeer"),
        ):
            configure(place.node, f"addr add {router}/32 dev {device}\nroute add {address}/32 dev {device} scope link")
            configure(
                pod,
                f"""addr add {address}/24 brd 10.89.0.255 dev eth0
                link set eth0 up
                route del 10.89.0.0/24 dev eth0
                route add {router} dev eth0 scope link src {address}
                route add 10.89.0.0/24 via {router} src {address}
                route add default via {router}""",
            )
            if dual_stack:
                configure(
                    place.node, f"addr add {router6}/128 dev {device} nodad\nroute add {address6}/128 dev {device}"
                )
                configure(pod, f"addr add {address6}/64 dev eth0")
        place.settle()
        if dual_stack:
            for pod, address6 in ((place.pod, own6), (place.peer, peer6)):
                # A source must not be tentative.
                configure(
                    pod,
                    f"""route del fd00:89::/64 dev eth0
                    route add {router6} dev eth0 src {address6}
                    route add fd00:89::/64 via {router6} src {address6}
                    route add default via {router6}""",
                )
        site = Site(
            place.node, place.pod, place.peer, own, 24, router, router, peer, mtu=mtu,
            targets=targets(place, own, router, peer),
            wires=(Wire(place.node, "ptppod", (POD_MAC,)),),
        )  # fmt: skip
        if dual_stack:
            site = replace(
                site, address6=own6, prefix6=64, gateway6=router6,
                targets=(*site.targets, *targets(place, own6, router6, peer6)),
            )  # fmt: skip
        yield site


@contextmanager
def kindnet(area: str = "net") -> Iterator[Site]:
    """kindnet's: the `ptp` plugin, here with both families."""
    with pointed(area, dual_stack=True) as site:
        yield site


@contextmanager
def ipv6_only_128(area: str = "net") -> Iterator[Site]:
    """IPv6 alone: a /128 whose router is known by its link-local address."""
    with surroundings(area) as place:
        place.plug_both("calipod", "calipeer", outside_mac=CALICO_MAC)
        _single(place.pod, "", _POD6)
        _single(place.peer, "", _PEER6)
        _host_routes(place, (_POD6, "calipod"), (_PEER6, "calipeer"))
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, "", 0, "", "", "",
            address6=_POD6, prefix6=128, gateway6=CALICO_LINK_LOCAL,
            targets=targets(place, _POD6, NODE6, _PEER6),
            wires=(Wire(place.node, "calipod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def ipv4_via_ipv6(area: str = "net") -> Iterator[Site]:
    """An IPv4 address whose router has an IPv6 address only (RFC 5549's next hops)."""
    own = "10.244.7.130"
    with surroundings(area) as place:
        place.plug_both("calipod", "calipeer", outside_mac=CALICO_MAC)
        for pod, address in ((place.pod, own), (place.peer, _PEER)):
            configure(
                pod,
                f"""addr add {address}/32 dev eth0
                link set eth0 up
                route add 0.0.0.0/0 via inet6 {CALICO_LINK_LOCAL} dev eth0""",
            )
        _host_routes(place, (own, "calipod"), (_PEER, "calipeer"))
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, own, 32, CALICO_LINK_LOCAL, NODE, _PEER,
            targets=targets(place, own, NODE, _PEER),
            wires=(Wire(place.node, "calipod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def pairs(area: str = "net") -> Iterator[Site]:
    """A /31 for each pod and its router (RFC 3021): two addresses and no other, neither of them the network's."""
    own, peer = ("10.90.0.2", "10.90.0.3"), ("10.90.0.4", "10.90.0.5")
    with surroundings(area) as place:
        place.plug_both("pairpod", "pairpeer")
        for pod, (address, router), device in ((place.pod, own, "pairpod"), (place.peer, peer, "pairpeer")):
            configure(place.node, f"addr add {router}/31 dev {device}")
            configure(
                pod,
                f"""addr add {address}/31 dev eth0
                link set eth0 up
                route add default via {router}""",
            )
        place.settle()
        yield Site(
            place.node, place.pod, place.peer, own[0], 31, own[1], own[1], peer[0],
            targets=targets(place, own[0], own[1], peer[0]),
            wires=(Wire(place.node, "pairpod", (POD_MAC,)),),
        )  # fmt: skip


@contextmanager
def without_default(area: str = "net") -> Iterator[Site]:
    """Routes by an off-link router to some networks, and none to the rest: the world answers, but not to this pod."""
    inner = "10.200.0.1"
    with routed(area) as site:
        configure(site.node, f"addr add {inner}/32 dev lo")
        configure(site.pod, f"route del default\nroute add 10.0.0.0/8 via {_NEXT_HOP} dev eth0")
        router, peer, beyond = site.targets
        yield replace(
            site,
            targets=(replace(router, address=inner), peer),
            forbidden=(beyond.address,),
            notes=("no default route",),
        )
