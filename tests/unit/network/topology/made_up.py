"""Pods' networks made up by hand: what the kernel would say of one that is plumbed, to be changed by a test.

The pictures of the documentation are of these too, as a picture that is drawn anew must be the same.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from shim.network.addressing.interfaces import MARK
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, Link, Neighbour
from shim.network.operations import AttachProgram, CreateBridge, CreateMacvtap, CreateTap, SetMac
from shim.network.plan import Plan
from shim.network.topology.assembling import Subject, assemble
from shim.network.topology.chains import Holder
from shim.network.topology.model import Fault, Pod, Topology
from shim.network.topology.planned import PROGRAM
from shim.network.topology.seen import Beyond, Filter, Forwarding, Further, Port, Seen, Tap
from tests.unit.network import building

T = TypeVar("T", bound=msgspec.Struct)

NETNS = "/run/netns/cni-5c1d"
SANDBOX = "8f2a91c04d7be6350123456789abcdef"
UP = rt.IFF_UP | rt.IFF_LOWER_UP
POD_MAC, ROUTER_MAC, CALICO_MAC = building.MAC, "5e:a0:92:19:db:70", building.ROUTER_MAC
PEER, SWITCH, NEIGHBOURS_PEER = 41, 7, 43
_HOLDER = Holder(monitor="qemu", pid=4242, dns=("10.96.0.10",))


class MadeUp(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: its plan, and what the kernel says of it and of the node's side, by the index of the pod's interface."""

    plan: Plan
    seen: Seen
    beyond: dict[int, Beyond]

    def topology(self, *, plan: bool = True) -> Topology:
        """The picture of it; without the `plan`, of the bare namespace."""
        if not plan:
            return assemble(NETNS, Subject(), self.seen, self.beyond)
        subject = Subject(sandbox=SANDBOX, pod=Pod(namespace="default", name="web"), plan=self.plan, holder=_HOLDER)
        return assemble(NETNS, subject, self.seen, self.beyond)

    def faults(self) -> dict[str, Fault]:
        """By code."""
        return {fault.code: fault for fault in self.topology().faults}

    def link(self, name: str) -> Link:
        """One of the pod's interfaces."""
        found = self.seen.layout.link(name)
        assert found is not None
        return found

    def with_link(self, name: str, /, **fields: Any) -> MadeUp:
        """One of the pod's interfaces changed."""
        links = tuple(replaced(link, **fields) if link.name == name else link for link in self.seen.layout.links)
        return self.with_layout(links=links)

    def without_link(self, name: str) -> MadeUp:
        """One of the pod's interfaces gone."""
        return self.with_layout(links=tuple(link for link in self.seen.layout.links if link.name != name))

    def with_layout(self, **fields: Any) -> MadeUp:
        """Something of the pod's namespace changed."""
        return replaced(self, seen=replaced(self.seen, layout=replaced(self.seen.layout, **fields)))

    def with_address(self, name: str, text: str) -> MadeUp:
        """One of the pod's interfaces given an address."""
        added = building.address(text, link=self.link(name).index)
        return self.with_layout(addresses=(*self.seen.layout.addresses, added))

    def with_port(self, name: str, **fields: Any) -> MadeUp:
        """A port of the pod's bridge changed."""
        index = self.link(name).index
        further = dict(self.seen.further)
        port = further[index].port
        assert port is not None
        further[index] = replaced(further[index], port=replaced(port, **fields))
        return self.with_seen(further=further)

    def with_seen(self, **fields: Any) -> MadeUp:
        """Something else of the pod's namespace changed."""
        return replaced(self, seen=replaced(self.seen, **fields))

    def with_beyond(self, **fields: Any) -> MadeUp:
        """Something of the node's side of the first interface changed."""
        index = self.plan.nics[0].index
        return replaced(self, beyond={**self.beyond, index: replaced(self.beyond[index], **fields)})

    def with_neighbour(self, mac: str, state: int) -> MadeUp:
        """The router's entry for the guest changed."""
        index = self.plan.nics[0].index
        entries = tuple(replaced(entry, mac=mac, state=state) for entry in self.beyond[index].neighbours)
        return self.with_beyond(neighbours=entries)


def places(topology: Topology) -> set[str]:
    """The ids of all that a fault can be at."""
    found = {element.id for chain in topology.now for element in chain.elements}
    return found | {joint.id for chain in topology.now for joint in chain.joints}


def replaced(struct: T, **fields: Any) -> T:
    """A copy with other values."""
    return msgspec.structs.replace(struct, **fields)


def bridged(dataplane: str = "bridge", **fields: Any) -> MadeUp:
    """A subnet behind the node's bridge, as the reference plugin `bridge` and docker leave it."""
    layout = building.subnet(**fields)
    return _made_up(layout, dataplane, [_behind_bridge("10.88.0.1/16", "10.88.0.2")])


def routed(dataplane: str = "mirror") -> MadeUp:
    """A /32 behind 169.254.1.1, for which the node answers, as Calico leaves it."""
    peer = _node_link(PEER, "cali8f2a91c04d7", mac=CALICO_MAC, parent=2)
    beyond = Beyond(
        peer=peer,
        addresses={PEER: ("fe80::ecee:eeff:feee:eeee/64",)},
        neighbours=(_entry(PEER, "10.1.2.3"),),
        proxies=True,
    )
    return _made_up(building.slash32(), dataplane, [beyond])


def dual_stack(dataplane: str = "mirror") -> MadeUp:
    """Both families behind the node's bridge."""
    layout = building.subnet(
        addresses=(building.address("10.88.0.2/16"), building.address("fd00:88::2/64")),
        routes=(
            building.route("default", "10.88.0.1"),
            building.connected("10.88.0.2/16"),
            building.route("default6", "fd00:88::1"),
            building.route("fd00:88::/64", protocol=rt.RTPROT_KERNEL, scope=0, metric=256),
        ),
    )
    beyond = _behind_bridge("10.88.0.1/16", "10.88.0.2")
    both = replaced(
        beyond,
        addresses={**beyond.addresses, SWITCH: ("10.88.0.1/16", "fd00:88::1/64")},
        neighbours=(*beyond.neighbours, _entry(SWITCH, "fd00:88::2")),
    )
    return _made_up(layout, dataplane, [both])


def two_nics(dataplane: str = "mirror") -> MadeUp:
    """A second interface by another plugin, a macvlan, whose parent is the node's uplink."""
    net1 = replaced(building.NET1, kind="macvlan", parent=3)
    layout = building.subnet(
        links=(building.LO, building.ETH0, net1),
        addresses=(building.address("10.88.0.2/16"), building.address("192.0.2.20/24", link=3)),
        routes=(
            building.route("default", "10.88.0.1"),
            building.connected("10.88.0.2/16"),
            building.connected("192.0.2.20/24", link=3),
        ),
    )
    uplink = Beyond(peer=_node_link(3, "ens5", kind="", mac="02:00:5e:10:00:99"), addresses={3: ("192.0.2.10/24",)})
    return _made_up(layout, dataplane, [_behind_bridge("10.88.0.1/16", "10.88.0.2"), uplink])


def not_plumbed() -> MadeUp:
    """A pod of ordinary containers."""
    layout = _kernel(building.subnet())
    plan = building.plan(building.subnet())
    seen = Seen(layout=layout, further={2: Further(elsewhere=0)})
    return MadeUp(plan=plan, seen=seen, beyond={2: _behind_bridge("10.88.0.1/16", "10.88.0.2")})


def _kernel(layout: Layout) -> Layout:
    """The layout with what the kernel says of interfaces that are in use."""
    links = tuple(
        replaced(link, flags=link.flags | UP, parent=link.parent or PEER) if link.name != "lo" else link
        for link in layout.links
    )
    return replaced(layout, links=links)


def _made_up(layout: Layout, dataplane: str, sides: list[Beyond]) -> MadeUp:
    layout = _kernel(layout)
    plan = building.plan(layout, seed=SANDBOX, dataplane=dataplane)
    links: dict[int, Link] = {link.index: link for link in layout.links}
    further = {link.index: Further(elsewhere=0 if link.name != "lo" else None) for link in layout.links}
    filters: list[Filter] = []
    for operation in plan.operations:
        if isinstance(operation, CreateBridge):
            links[operation.index] = _own(operation.index, operation.link, "bridge", operation.mac, operation.mtu)
            further[operation.index] = Further()
        elif isinstance(operation, CreateTap):
            links[operation.index] = _own(operation.index, operation.link, "tun", "", 0)
            further[operation.index] = Further(tap=Tap(persistent=operation.persistent, vnet_hdr=operation.vnet_hdr))
        elif isinstance(operation, CreateMacvtap):
            made = _own(operation.index, operation.link, "macvtap", "", operation.mtu)
            links[operation.index] = replaced(made, parent=operation.parent, mac=links[operation.parent].mac)
            further[operation.index] = Further()
        elif isinstance(operation, SetMac):
            links[operation.index] = replaced(links[operation.index], mac=operation.mac)
        elif isinstance(operation, AttachProgram):
            name = f"{PROGRAM}{operation.side}"
            filters.append(Filter(link=operation.index, place=operation.place, kind="bpf", name=name))
            links[operation.index] = replaced(links[operation.index], filters="clsact")
    for position, nic in enumerate(plan.nics):
        tap = next(index for index, link in links.items() if link.name == nic.tap)
        mac = links[tap].mac or f"9a:5b:2c:00:00:{tap:02x}"
        links[tap] = replaced(links[tap], mtu=nic.mtu, mac=mac)
        links[nic.index] = replaced(links[nic.index], alias=MARK + SANDBOX)
        if nic.dataplane == "bridge":
            bridge = tap + 1
            for index, learning in ((tap, True), (nic.index, False)):
                links[index] = replaced(links[index], master=bridge)
                port = Port(state="forwarding", learning=learning)
                further[index] = replaced(further[index], port=port)
        assert position < len(sides)
    learned = tuple(
        Forwarding(link=index, mac=plan.nics[0].mac)
        for index, link in links.items()
        if link.kind == "tun" and link.master
    )
    left = replaced(layout, links=tuple(links.values()), addresses=(), routes=(), sysctls={})
    return MadeUp(
        plan=plan,
        seen=Seen(layout=left, further=further, filters=tuple(filters), forwarding=learned[:1]),
        beyond={nic.index: side for nic, side in zip(plan.nics, sides, strict=True)},
    )


def _own(index: int, name: str, kind: str, mac: str, mtu: int) -> Link:
    return Link(index=index, name=name, kind=kind, mac=mac, mtu=mtu, flags=UP, hardware=rt.ARPHRD_ETHER)


def _node_link(index: int, name: str, kind: str = "veth", **fields: Any) -> Link:
    values = {"mac": ROUTER_MAC, "mtu": 1500, "flags": UP, "hardware": rt.ARPHRD_ETHER, **fields}
    return Link(index=index, name=name, kind=kind, **values)


def _behind_bridge(gateway: str, own: str) -> Beyond:
    return Beyond(
        peer=_node_link(PEER, "veth5c1d20e8", mac="c2:76:2e:1c:59:bd", parent=2, master=SWITCH),
        port=Port(state="forwarding", learning=True),
        switch=_node_link(SWITCH, "cni0", "bridge"),
        addresses={PEER: (), SWITCH: (gateway,)},
        neighbours=(_entry(SWITCH, own),),
        forwarding=(
            Forwarding(link=PEER, mac=POD_MAC),
            Forwarding(link=NEIGHBOURS_PEER, mac="02:00:5e:10:00:07"),
        ),
        ports={PEER: "veth5c1d20e8", NEIGHBOURS_PEER: "veth93aa01f2"},
    )


def _entry(link: int, address: str) -> Neighbour:
    return Neighbour(link=link, address=address, mac=POD_MAC, state=rt.NUD_REACHABLE)
