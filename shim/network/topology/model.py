"""The picture of a pod's network: what leads from a guest to its router, as data for whoever draws it.

It is JSON as it stands, and what `Inspection.Topology` answers. docs/topology.md says how to read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: Where an element is: behind the tap, in the pod's network namespace, in the node's.
Place = Literal["guest", "pod", "node"]
#: Who made it, and answers for it.
Owner = Literal["guest", "shim", "cni", "node", "pod", "unknown"]
#: What it is. A `stack` is the pod's own TCP/IP; a `peer` is what an interface of the pod leads to on the node, and a
#: `switch` what that is a port of.
Sort = Literal["guest", "stack", "tap", "bridge", "interface", "peer", "switch"]
#: How two elements are joined.
Join = Literal["descriptor", "port", "redirect", "macvtap", "veth", "parent", "stack"]
#: "" where it has none.
State = Literal["", "up", "down", "no carrier", "missing"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour entry: an address, the MAC that it is taken to have ("" for none), and the kernel's word for how sure
    that is, as ip-neighbour(8) has it."""

    address: str
    mac: str
    state: str


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A filter of tc(8): where it sits ("ingress", "egress"), its name, whose it is, and in words what it does, ""
    where that is not known. One that should be there and is not is not `there`."""

    place: str
    name: str
    owner: Owner
    does: str = ""
    there: bool = True


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """A MAC that a bridge has learned, and the name of the port that it is behind."""

    mac: str
    port: str


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on the way. `kind` is the driver's name, or a guest's monitor; `mtu` is 0 where it is not known.

    Of a guest all is what it was told; `next_hops` are the pod's real ones, `router` is the MAC of the virtual router
    where the gateway is that. `neighbours` are entries for the guest's addresses, of a stack those that somebody made;
    `learned` are the MACs behind a bridge's ports that matter here. `words` are further sentences.
    """

    id: str
    sort: Sort
    place: Place
    owner: Owner
    name: str
    kind: str = ""
    state: State = ""
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()
    router: str = ""
    neighbours: tuple[Entry, ...] = ()
    programs: tuple[Program, ...] = ()
    learned: tuple[Learned, ...] = ()
    words: tuple[str, ...] = ()


class Joint(msgspec.Struct, frozen=True, kw_only=True):
    """What joins two neighbouring elements, by their ids: the one nearer to the guest, and the one nearer to the
    router. `words` say how; `whole` is whether frames pass."""

    id: str
    upper: str
    lower: str
    sort: Join
    words: str
    whole: bool = True


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of the pod and all that is on its way, in order: the guest first, the node's side last. There is a
    joint between every two. `dataplane` is "" where nothing is plumbed."""

    nic: str
    dataplane: str
    elements: tuple[Element, ...]
    joints: tuple[Joint, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong: a code for programs, the id of the element or joint, which of its fields and, of several values,
    which one ("" where that is all of it), a sentence, and what to do."""

    code: str
    at: str
    sentence: str
    remedy: str = ""
    field: str = ""
    value: str = ""


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """Kubernetes' names, "" where they are not known."""

    namespace: str = ""
    name: str = ""


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """All of a pod's network. `id` is the sandbox's, "" where that is not known.

    `before` is how the CNI plugin left it, as the plan recorded it; empty where nothing is plumbed, or no plan is
    known. `now` is how it is.
    """

    id: str
    pod: Pod
    netns: str
    plumbed: bool
    before: tuple[Chain, ...] = ()
    now: tuple[Chain, ...] = ()
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
