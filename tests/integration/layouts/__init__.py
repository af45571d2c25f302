"""Pods' network namespaces as CNI plugins leave them, built with ip(8) and thrown away afterwards.

Each layout is a node (the router), one pod's namespace behind a veth of the node, and an ordinary pod next to it to
talk to. Nothing here imports the shim: these are the facts it is tested against.
"""

from tests.integration.layouts.namespaces import inside, ip, namespaces, pings, settle
from tests.integration.layouts.plugins import bridged, pointed, routed
from tests.integration.layouts.site import CALICO_MAC, POD_MAC, Site
from tests.integration.layouts.snapshot import dump

__all__ = [
    "CALICO_MAC", "POD_MAC", "Site", "bridged", "dump", "inside", "ip", "namespaces", "pings", "pointed", "routed",
    "settle",
]  # fmt: skip
