"""The `bridge` dataplane: the pod's interface and the guest's tap are ports of a bridge in the pod's namespace.

The guest takes the interface's MAC over, because the world already knows the pod by it; the interface must then have
another one, or the bridge would keep the guest's frames for itself. Where the guest was told a prefix that is not true
on the wire, the bridge answers its ARP from permanent neighbour entries that hold the next hop's MAC, and a static
forwarding entry makes those frames leave by the interface. IPv6 is off on all three devices before they come up:
nothing of the pod's namespace may speak on the guest's wire.
"""

from __future__ import annotations

import hashlib

from shim.network.addressing import MARK, Attachment
from shim.network.layout import Layout, Link
from shim.network.operations import (
    AddForwarding,
    AddNeighbour,
    AnswerArp,
    AnswerFor,
    CreateBridge,
    CreateTap,
    DelLink,
    Enslave,
    Release,
    SetMac,
    SetMtu,
    SetSysctl,
    SetUp,
    Step,
    StopLearning,
)
from shim.network.vacate import disable_ipv6, quiet_ipv6, vacate


def derived_mac(seed: str, role: str) -> str:
    """A locally administered unicast MAC (IEEE 802, bits 1 and 0 of the first byte) that is the same for the same pod
    and role, and different for every pod: a constant would meet itself on the wire."""
    digest = hashlib.sha256(f"{seed}/{role}".encode()).digest()
    return bytes(((digest[0] & 0xFC) | 0x02, *digest[1:6])).hex(":")


def steps(
    layout: Layout, attachment: Attachment, tap: CreateTap, bridge: str, index: int, *, seed: str, next_hop_mac: str,
    move_mac: bool,
) -> tuple[Step, ...]:  # fmt: skip
    """All steps, in the order in which they are applied.

    `bridge` and `index` are the new bridge's; `next_hop_mac` may be empty while unresolved; `move_mac` False leaves the
    interface its MAC, for the test that shows what then goes wrong. Steps that are netlink requests and steps that need
    a thread in the namespace are kept together, so that applying takes two round trips and two visits.
    """
    link = attachment.link
    with_bridge = f"goes with {bridge}"
    with_tap = f"goes with {tap.link}"
    first = quiet_ipv6(layout, link)
    first.append(Step(do=tap, undo=(DelLink(link=tap.link),)))

    second = [
        Step(
            do=CreateBridge(
                index=index,
                link=bridge,
                mac=derived_mac(seed, "bridge"),
                mtu=attachment.mtu,
                alias=MARK + seed,
            ),
            undo=(DelLink(link=bridge),),
        )
    ]
    second += vacate(layout, link)
    if move_mac:
        second.append(
            Step(
                do=SetMac(index=link.index, link=link.name, mac=derived_mac(seed, link.name)),
                undo=(SetMac(index=link.index, link=link.name, mac=link.mac),),
            )
        )

    third: list[Step] = []
    if any(key.startswith("net/ipv6/") for key in layout.sysctls):
        for name, lapses in ((tap.link, with_tap), (bridge, with_bridge)):
            third.append(Step(do=SetSysctl(key=f"net/ipv6/conf/{name}/disable_ipv6", value="1"), lapses=lapses))
    third += disable_ipv6(layout, link)

    fourth = [
        Step(
            do=Enslave(index=link.index, link=link.name, master=index, bridge=bridge),
            undo=(Release(index=link.index, link=link.name),),
        ),
        Step(do=StopLearning(index=link.index, link=link.name), lapses=with_bridge),
        Step(do=SetMtu(index=tap.index, link=tap.link, mtu=attachment.mtu), lapses=with_tap),
        Step(do=Enslave(index=tap.index, link=tap.link, master=index, bridge=bridge), lapses=with_tap),
    ]
    if attachment.proxied or attachment.pinned:
        fourth.append(Step(do=AnswerArp(index=link.index, link=link.name), lapses=with_bridge))
    fourth.append(Step(do=SetUp(index=index, link=bridge), lapses=with_bridge))
    fourth.append(Step(do=SetUp(index=tap.index, link=tap.link), lapses=with_tap))
    fourth += _answers(attachment, link, bridge, index, next_hop_mac)
    return (*first, *second, *third, *fourth)


def _answers(attachment: Attachment, link: Link, bridge: str, index: int, next_hop_mac: str) -> list[Step]:
    """Entries that the bridge answers ARP from. It does so only for MACs that it knows to be behind another port."""
    lapses = f"goes with {bridge}"
    hop = str(attachment.next_hop or "")
    found = [
        Step(do=AddForwarding(index=link.index, link=link.name, mac=mac), lapses=lapses)
        for mac in sorted(set(attachment.pinned.values()))
    ]
    found += [
        Step(do=AddNeighbour(index=index, link=bridge, address=str(address), mac=mac), lapses=lapses)
        for address, mac in attachment.pinned.items()
    ]
    if attachment.proxied:
        found.append(
            Step(
                do=AddForwarding(index=link.index, link=link.name, mac=next_hop_mac, next_hop=hop),
                lapses=lapses,
            )
        )
        found.append(
            Step(
                do=AnswerFor(
                    index=index,
                    link=bridge,
                    network=str(attachment.address.network),
                    own=str(attachment.address.ip),
                    mac=next_hop_mac,
                    next_hop=hop,
                ),
                lapses=lapses,
            )
        )
    return found
