"""Pods with more interfaces than eth0, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.integration.layouts.namespaces import configure, settle
from tests.integration.layouts.site import Bare, Site, Target, Wire
from tests.integration.layouts.subnets import bridged
from tests.integration.layouts.surroundings import Surroundings, surroundings


@contextmanager
def multus(area: str = "net") -> Iterator[Site]:
    """Multus: beside eth0 a net1 with an address and no default route, and a net2 with no address at all."""
    with bridged(area) as site:
        place = Surroundings(site.node, site.pod, site.peer, site.targets[2].namespace, 1500)
        wires, lines = [*site.wires], []
        for number, name in enumerate(("net1", "net2"), 1):
            pod_mac, peer_mac = f"02:00:5e:10:0{number}:02", f"02:00:5e:10:0{number}:03"
            place.plug(f"pod{name}", mac=pod_mac, name=name)
            place.plug(f"peer{name}", pod=site.peer, mac=peer_mac, name=name)
            place.bridge(f"lan{number}", ports=(f"pod{name}", f"peer{name}"))
            wires.append(Wire(site.node, f"pod{name}", (pod_mac,)))
            lines.append(f"addr add 192.168.{number}.3/24 dev {name}\nlink set {name} up")
        configure(site.peer, "\n".join(lines))
        configure(
            site.pod,
            """addr add 192.168.1.2/24 dev net1
            link set net1 up
            link set net2 up""",
        )
        settle(site.pod)
        settle(site.peer)
        yield replace(
            site,
            interfaces=("eth0", "net1", "net2"),
            targets=(*site.targets, Target("peer", site.peer, "192.168.1.3", "192.168.1.2", "net1")),
            bare=(Bare("net2", "192.168.2.2/24", site.peer, "192.168.2.3"),),
            wires=tuple(wires),
            notes=("net2 has no address",),
        )


@contextmanager
def default_by_another(area: str = "net") -> Iterator[Site]:
    """Multus where the pod's default route is the secondary network's: eth0 leads to the cluster only."""
    own, gateway, inner = "192.168.1.2", "192.168.1.1", "10.200.0.1"
    with bridged(area) as site:
        router, peer, beyond = site.targets
        place = Surroundings(site.node, site.pod, site.peer, beyond.namespace, 1500)
        place.plug("podnet1", mac="02:00:5e:10:01:02", name="net1")
        place.bridge("lan1", f"{gateway}/24", ports=("podnet1",))
        configure(site.node, f"addr add {inner}/32 dev lo")
        configure(
            site.pod,
            f"""route del default
            route add 10.0.0.0/8 via {site.gateway}
            addr add {own}/24 dev net1
            link set net1 up
            route add default via {gateway}""",
        )
        settle(site.pod)
        yield replace(
            site,
            interfaces=("eth0", "net1"),
            targets=(
                router,
                peer,
                Target("cluster", site.node, inner, site.address),
                Target("router", site.node, gateway, own, "net1"),
                Target("beyond", beyond.namespace, beyond.address, own, "net1"),
            ),
            wires=(*site.wires, Wire(site.node, "podnet1", ("02:00:5e:10:01:02",))),
        )


@contextmanager
def no_interface(area: str = "net") -> Iterator[Site]:
    """A pod without a network: loopback alone, as without any plugin. (A pod on the host's network has the host's
    namespace, which is never plumbed; test_network.py says so.)"""
    with surroundings(area) as place:
        yield Site(place.node, place.pod, place.peer, "", 0, "", "", "", interfaces=())
