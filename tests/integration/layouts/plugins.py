"""A layout for each kind of CNI plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.layouts.namespaces import ip, namespaces, settle, sysctl
from tests.integration.layouts.site import CALICO_MAC, POD_MAC, Site


@contextmanager
def bridged(area: str = "net", mtu: int = 1500, *, settled: bool = True) -> Iterator[Site]:
    """The subnet layout, as the reference `bridge` plugin and docker leave it."""
    with namespaces("node", "pod", "peer", area=area) as (node, pod, peer):
        ip("link", "add", "cni0", "type", "bridge", namespace=node)
        ip("addr", "add", "10.88.0.1/16", "dev", "cni0", namespace=node)
        ip("link", "set", "cni0", "up", namespace=node)
        for name, address, mac, outside in (
            (pod, "10.88.0.2/16", POD_MAC, "vethpod"),
            (peer, "10.88.0.3/16", "02:00:5e:10:00:03", "vethpeer"),
        ):
            _veth(node, outside, name, mac, mtu)
            ip("link", "set", outside, "master", "cni0", "up", namespace=node)
            ip("addr", "add", address, "brd", "10.88.255.255", "dev", "eth0", namespace=name)
            ip("link", "set", "eth0", "up", namespace=name)
            ip("route", "add", "default", "via", "10.88.0.1", namespace=name)
        if settled:
            settle(pod)
        yield Site(node, pod, peer, "10.88.0.2", 16, "10.88.0.1", "10.88.0.1", "10.88.0.3")


@contextmanager
def routed(area: str = "net", mtu: int = 1500, pod_address: str = "10.244.7.130") -> Iterator[Site]:
    """The /32 layout, as Calico leaves it: an off-link gateway answered by proxy ARP, and on the node a blackhole
    route for the block that the pod's address is from."""
    with namespaces("node", "pod", "peer", area=area) as (node, pod, peer):
        sysctl(node, "net.ipv4.ip_forward", "1")
        ip("route", "add", "blackhole", "10.244.7.128/26", namespace=node)
        # Proxy ARP answers for what the node would route elsewhere, so it needs the default route that every node has.
        ip("link", "add", "uplink", "type", "veth", "peer", "name", "world", namespace=node)
        ip("addr", "add", "192.0.2.1/24", "dev", "uplink", namespace=node)
        for device in ("world", "uplink"):
            ip("link", "set", device, "up", namespace=node)
        ip("route", "add", "default", "via", "192.0.2.254", namespace=node)
        for name, address, mac, outside in (
            (pod, pod_address, POD_MAC, "calipod"),
            (peer, "10.244.7.133", "02:00:5e:10:00:03", "calipeer"),
        ):
            _veth(node, outside, name, mac, mtu)
            ip("link", "set", outside, "address", CALICO_MAC, "up", namespace=node)
            sysctl(node, f"net.ipv4.conf.{outside}.proxy_arp", "1")
            sysctl(node, f"net.ipv4.neigh.{outside}.proxy_delay", "0")
            ip("addr", "add", f"{address}/32", "dev", "eth0", namespace=name)
            ip("link", "set", "eth0", "up", namespace=name)
            ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link", namespace=name)
            ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0", namespace=name)
            ip("route", "add", f"{address}/32", "dev", outside, "scope", "link", namespace=node)
        settle(pod)
        yield Site(node, pod, peer, pod_address, 32, "169.254.1.1", "192.0.2.1", "10.244.7.133")


@contextmanager
def pointed(area: str = "net", mtu: int = 1500) -> Iterator[Site]:
    """The reference `ptp` plugin's layout: a subnet's prefix whose connected route is taken away, and a host veth that
    owns the gateway's address and proxies nothing."""
    with namespaces("node", "pod", "peer", area=area) as (node, pod, peer):
        sysctl(node, "net.ipv4.ip_forward", "1")
        for name, address, mac, outside in (
            (pod, "10.89.0.18", POD_MAC, "ptppod"),
            (peer, "10.89.0.19", "02:00:5e:10:00:03", "ptppeer"),
        ):
            _veth(node, outside, name, mac, mtu)
            ip("addr", "add", "10.89.0.1/32", "dev", outside, namespace=node)
            ip("link", "set", outside, "up", namespace=node)
            ip("route", "add", f"{address}/32", "dev", outside, "scope", "link", namespace=node)
            ip("addr", "add", f"{address}/24", "brd", "10.89.0.255", "dev", "eth0", namespace=name)
            ip("link", "set", "eth0", "up", namespace=name)
            ip("route", "del", "10.89.0.0/24", "dev", "eth0", namespace=name)
            ip("route", "add", "10.89.0.1", "dev", "eth0", "scope", "link", namespace=name)
            ip("route", "add", "10.89.0.0/24", "via", "10.89.0.1", "src", address, namespace=name)
            ip("route", "add", "default", "via", "10.89.0.1", namespace=name)
        settle(pod)
        yield Site(node, pod, peer, "10.89.0.18", 24, "10.89.0.1", "10.89.0.1", "10.89.0.19")


def _veth(node: str, outside: str, pod: str, mac: str, mtu: int) -> None:
    ip("link", "add", outside, "mtu", str(mtu), "type", "veth", "peer", "name", "eth0", "address", mac,
       "mtu", str(mtu), "netns", pod, namespace=node)  # fmt: skip
