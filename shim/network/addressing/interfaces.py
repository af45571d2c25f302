"""Which of a pod's interfaces a guest can be given, and by which dataplane. Pure."""

from __future__ import annotations

from typing import Literal, get_args

from shim.errors import InvalidRequest, NetworkFault
from shim.network.kernel import rtnetlink as rt
from shim.network.layout import Layout, Link

Dataplane = Literal["bridge", "mirror", "macvtap"]
#: The dataplanes there are.
DATAPLANES: tuple[Dataplane, ...] = get_args(Dataplane)
#: What stands for the best: it suits every interface, and costs a frame least of those that do (docs/performance.md).
AUTO = "auto"
_BEST: Dataplane = "mirror"
#: The alias by which plumbing of ours is recognised; the sandbox's id follows.
MARK = "unikernel-shim:"

_NONE = "a unikernel that needs no network takes the annotation io.unikernel.network=none"
_VETH = "use a CNI plugin that gives pods a veth"
#: Drivers of interfaces that are no pod's way out.
_INNER = ("bridge", "dummy", "ifb", "nlmon", "vrf", "tun")
#: Why an interface of that driver cannot be bridged or taken over; redirecting its frames is all that works.
_MIRROR_ONLY = {
    "macvlan": "its parent delivers only frames for its own MAC, which it would have to give away",
    "macvtap": "its parent delivers only frames for its own MAC, which it would have to give away",
    "ipvlan": "it shares its parent's MAC, so a port of a bridge cannot have another",
    "ipvtap": "it shares its parent's MAC, so a port of a bridge cannot have another",
}


def candidates(layout: Layout) -> tuple[str, ...]:
    """The names of the interfaces that stand for a NIC, eth0 first, then in the kernel's order.

    One that is down, a tunnel, or joined to another device is none; eth0 always is, so that what is wrong with it is
    said and not passed over.
    """
    names = [link.name for link in layout.links if link.name == "eth0" or not _unfit(link)]
    return tuple(sorted(names, key=lambda name: name != "eth0"))


def chosen(layout: Layout, names: tuple[str, ...]) -> tuple[Link, ...]:
    """The interfaces of those names. Raises NetworkFault for one that is not there or cannot be handed over."""
    return tuple(_chosen(layout, name) for name in names)


def refuse_plumbed(layout: Layout) -> None:
    """Raises NetworkFault where the namespace carries plumbing of ours already."""
    for link in layout.links:
        if link.alias.startswith(MARK):
            raise NetworkFault(
                f"the namespace is already plumbed for sandbox {link.alias.removeprefix(MARK)}",
                subject=link.name,
                remedy="a pod has one address, so one unikernel: give the second its own pod",
            )


def dataplane_for(link: Link, wanted: str) -> Dataplane:
    """The dataplane to use. Raises NetworkFault where the wanted one does not suit the interface, InvalidRequest for
    one that does not exist."""
    if wanted == AUTO:
        return _BEST
    chosen = next((dataplane for dataplane in DATAPLANES if dataplane == wanted), None)
    if chosen is None:
        raise InvalidRequest(
            f"there is no dataplane {wanted!r}", remedy=f"choose one of {', '.join((AUTO, *DATAPLANES))}"
        )
    reason = "" if chosen == "mirror" else _MIRROR_ONLY.get(link.kind, "")
    if reason:
        raise NetworkFault(
            f"{link.name} is {link.kind}, with which the dataplane {wanted} cannot work: {reason}",
            subject=link.name,
            remedy="choose the dataplane mirror, or auto",
        )
    return chosen


def layer3(link: Link) -> bool:
    """Whether frames' MACs mean nothing to the interface, and nobody answers for addresses on it."""
    return link.kind in ("ipvlan", "ipvtap") and link.mode == "l3"


def keeps_addresses(link: Link) -> bool:
    """Whether the interface gets frames only for as long as it has its addresses."""
    return link.kind in ("ipvlan", "ipvtap")


def _chosen(layout: Layout, name: str) -> Link:
    link = layout.link(name)
    if link is None:
        names = ", ".join(link.name for link in layout.links) or "no interface at all"
        raise NetworkFault(f"the pod has no {name}, only {names}", subject=name, remedy=_NONE)
    reason = _unfit(link)
    if reason:
        raise NetworkFault(f"{link.name} {reason[0]}", subject=link.name, remedy=reason[1])
    return link


def _unfit(link: Link) -> tuple[str, str] | None:
    """Why an interface cannot be a guest's, and what would help."""
    if link.flags & rt.IFF_LOOPBACK:
        return "is the loopback", _NONE
    if link.kind in ("ipvlan", "ipvtap") and link.mode == "l3s":
        return "is ipvlan in mode l3s, which hands packets to the pod's own stack and to nobody else", (
            "use ipvlan in mode l2 or l3"
        )
    if link.kind == "netkit" and link.flags & rt.IFF_NOARP:
        return "is netkit in its L3 mode, which carries no Ethernet frames that a guest could exchange", (
            "have Cilium use veth, or netkit in its L2 mode"
        )
    if link.hardware != rt.ARPHRD_ETHER or (link.flags & rt.IFF_NOARP and not layer3(link)):
        return "is not Ethernet, and a guest speaks nothing else", _VETH
    if link.kind in _INNER:
        return f"is a {link.kind}, which leads nowhere", _VETH
    if link.master:
        return "is already a port of another device", _VETH
    if not link.up:
        return "is down", "look at the CNI plugin's log"
    return None
