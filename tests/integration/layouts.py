"""Pods' network namespaces as CNI plugins leave them, built with ip(8) and thrown away afterwards.

Each layout is a node (the router), one pod's namespace behind a veth of the node, and an ordinary pod next to it to
talk to. Nothing here imports the shim: these are the facts it is tested against.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The router's MAC as Calico gives it to every host-side veth.
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
POD_MAC = "02:00:5e:10:00:02"
_numbers = itertools.count()


def ip(*words: str, namespace: str = "") -> str:
    """Run ip(8); raises CalledProcessError with what it said."""
    prefix = ["-n", namespace] if namespace else []
    return _run("ip", *prefix, *words)


def inside(namespace: str, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a program inside a namespace; its exit code is the caller's to judge."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *argv], capture_output=True, text=True, timeout=timeout, check=False
    )


def pings(namespace: str, address: str, *, count: int = 2, size: int = 56, wait: float = 1.0) -> bool:
    """Whether `address` answers a ping from the namespace."""
    argv = ("ping", "-n", "-q", "-i", "0.05", "-c", str(count), "-W", str(wait), "-s", str(size), "-M", "do", address)
    return inside(namespace, *argv).returncode == 0


@dataclass(frozen=True)
class Site:
    """A node with a pod to be plumbed and an ordinary pod beside it. `gateway` is the pod's own next hop."""

    node: str
    pod: str
    peer: str
    address: str
    prefix: int
    gateway: str
    router: str
    peer_address: str
    mac: str = POD_MAC

    @property
    def path(self) -> Path:
        """The pod's namespace as containerd would hand it over."""
        return Path("/run/netns") / self.pod


@contextmanager
def namespaces(*roles: str, area: str = "net") -> Iterator[list[str]]:
    """Fresh named namespaces with loopback up; removed afterwards whatever happened."""
    stamp = f"{area}-{os.getpid()}-{next(_numbers)}"
    names = [f"{stamp}-{role}" for role in roles]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", namespace=name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


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
        _sysctl(node, "net.ipv4.ip_forward", "1")
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
            _sysctl(node, f"net.ipv4.conf.{outside}.proxy_arp", "1")
            _sysctl(node, f"net.ipv4.neigh.{outside}.proxy_delay", "0")
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
        _sysctl(node, "net.ipv4.ip_forward", "1")
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


def dump(namespace: str) -> dict[str, Any]:
    """Everything that undoing must bring back: links, addresses, routes of both families and all tables, permanent
    neighbours, and IPv6's settings of eth0. Counters and ages are left out, as they move by themselves."""
    found: dict[str, Any] = {
        "links": _json(namespace, "-d", "link"),
        "addresses": _json(namespace, "-d", "addr"),
        "routes": _json(namespace, "-d", "-4", "route", "show", "table", "all"),
        "routes6": _json(namespace, "-d", "-6", "route", "show", "table", "all"),
        "neighbours": [entry for entry in _json(namespace, "neigh") if "PERMANENT" in entry.get("state", [])],
    }
    settings = inside(namespace, "sh", "-c", "cd /proc/sys/net/ipv6/conf/eth0 2>/dev/null && grep -s . *")
    found["settings"] = sorted(settings.stdout.splitlines())
    for link in found["links"] + found["addresses"]:
        # The queueing state and the bridge-port timers are the kernel's; a lifetime runs.
        link.pop("stats64", None)
        for address in link.get("addr_info", ()):
            for key in ("valid_life_time", "preferred_life_time"):
                if address.get(key, 0) < 0xFFFFFFFF:
                    address[key] = "running"
    return found


def _json(namespace: str, *words: str) -> list[Any]:
    said = ip("-j", *words, namespace=namespace)
    found: list[Any] = json.loads(said) if said.strip() else []
    return found


def _veth(node: str, outside: str, pod: str, mac: str, mtu: int) -> None:
    ip("link", "add", outside, "mtu", str(mtu), "type", "veth", "peer", "name", "eth0", "address", mac,
       "mtu", str(mtu), "netns", pod, namespace=node)  # fmt: skip


def settle(pod: str) -> None:
    """Wait until eth0's IPv6 address is no longer tentative: before that its flags move by themselves."""
    deadline = 60
    while deadline and ("tentative" in ip("-6", "addr", "show", "dev", "eth0", namespace=pod)):
        subprocess.run(["sleep", "0.1"], check=True)
        deadline -= 1


def _sysctl(namespace: str, key: str, value: str) -> None:
    done = inside(namespace, "sysctl", "-q", "-w", f"{key}={value}")
    assert done.returncode == 0, done.stderr


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
