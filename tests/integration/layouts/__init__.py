"""Pods' network namespaces as CNI plugins leave them, built with ip(8) and thrown away afterwards.

Each layout is a node (the router), one pod's namespace behind a veth of the node, an ordinary pod next to it, and the
world behind the node. Nothing here imports the shim: these are the facts it is tested against.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.integration.layouts.host_routes import (
    aws,
    aws_second_nic,
    azure,
    calico_dual_stack,
    calico_pinned,
    cilium,
    ipv4_via_ipv6,
    ipv6_only_128,
    kindnet,
    pairs,
    pointed,
    routed,
    without_default,
)
from tests.integration.layouts.namespaces import (
    configure,
    hasten,
    inside,
    ip,
    namespaces,
    pings,
    settle,
    sysctl,
    within,
)
from tests.integration.layouts.secondary import default_by_another, multus, no_interface
from tests.integration.layouts.site import CALICO_MAC, POD_LINK_LOCAL, POD_MAC, Bare, Site, Target, Wire
from tests.integration.layouts.snapshot import devices, differences, dump, without
from tests.integration.layouts.subnets import (
    advertise,
    advertised,
    antrea,
    bridged,
    dual_stack,
    flannel,
    ipv6_only,
    macvlan,
    no_default,
    onlink_gateway,
    ovn_kubernetes,
    refusing_routes,
    several_gateways,
)

#: Every layout that this machine's kernel can build, by a name for the tests' ids.
ALL: dict[str, Callable[[], AbstractContextManager[Site]]] = {
    "bridge": bridged,
    "flannel": flannel,
    "dual-stack": dual_stack,
    "autoconfigured": advertised,
    "ipv6-64": ipv6_only,
    "ovn-kubernetes": ovn_kubernetes,
    "antrea": antrea,
    "onlink-gateway": onlink_gateway,
    "several-gateways": several_gateways,
    "refusing-routes": refusing_routes,
    "no-default-route": no_default,
    "ptp": pointed,
    "kindnet": kindnet,
    "calico": routed,
    "calico-dual-stack": calico_dual_stack,
    "calico-pinned": calico_pinned,
    "aws": aws,
    "aws-second-nic": aws_second_nic,
    "azure": azure,
    "cilium": cilium,
    "ipv6-128": ipv6_only_128,
    "ipv4-via-ipv6": ipv4_via_ipv6,
    "slash31": pairs,
    "routes-without-default": without_default,
    "macvlan": macvlan,
    "multus": multus,
    "default-by-net1": default_by_another,
    "no-interface": no_interface,
}

__all__ = [
    "ALL", "CALICO_MAC", "POD_LINK_LOCAL", "POD_MAC", "Bare", "Site", "Target", "Wire", "advertise", "bridged",
    "configure", "devices", "differences", "dump", "hasten", "inside", "ip", "namespaces", "pings", "pointed", "routed",
    "settle", "sysctl", "within", "without",
]  # fmt: skip
