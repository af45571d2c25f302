"""What a layout is, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The router's MAC as Calico gives it to every host-side veth.
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
POD_MAC = "02:00:5e:10:00:02"


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
