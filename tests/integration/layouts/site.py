"""What a layout is, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.layouts.namespaces import NAMED

#: The router's MAC as Calico gives it to every host-side veth.
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
#: Its link-local address, by modified EUI-64 (RFC 4291, appendix A).
CALICO_LINK_LOCAL = "fe80::ecee:eeff:feee:eeee"
POD_MAC = "02:00:5e:10:00:02"
POD_LINK_LOCAL = "fe80::5eff:fe10:2"
PEER_MAC = "02:00:5e:10:00:03"


@dataclass(frozen=True)
class Target:
    """Somebody whom the pod reaches and who reaches the pod.

    `role` is "router", "peer" (another pod of the node), "beyond" (behind the router), or another's name; `own` is the
    pod's address that they speak to, on the pod's `interface`.
    """

    role: str
    namespace: str
    address: str
    own: str
    interface: str = "eth0"

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        return f"{self.role} {self.address}"


@dataclass(frozen=True)
class Wire:
    """The other end of one of the pod's interfaces: where it is, and the MACs that may be seen to send there."""

    namespace: str
    device: str
    macs: tuple[str, ...]


@dataclass(frozen=True)
class Bare:
    """An interface of the pod that has no address, and an address that works there for whoever uses it: the plugin
    has left that to the workload."""

    interface: str
    free: str
    namespace: str
    address: str


@dataclass(frozen=True)
class Site:
    """A node with a pod to be plumbed and an ordinary pod beside it.

    `gateway` and `gateway6` are the pod's own next hops; an address is "" where the layout has none of that family.
    `mtu` is the largest packet that the pod may send. `targets` are all to be reached, `forbidden` are addresses that
    answer, but not to this pod. `refusals` say by a pattern why a dataplane cannot serve this layout, by the
    dataplane's name; `notes` are patterns that a plan's notes must match.
    """

    node: str
    pod: str
    peer: str
    address: str
    prefix: int
    gateway: str
    router: str
    peer_address: str
    mac: str = POD_MAC
    mtu: int = 1500
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    targets: tuple[Target, ...] = ()
    forbidden: tuple[str, ...] = ()
    wires: tuple[Wire, ...] = ()
    bare: tuple[Bare, ...] = ()
    interfaces: tuple[str, ...] = ("eth0",)
    refusals: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The pod's namespace as containerd would hand it over."""
        return NAMED / self.pod
