"""The `bridge` dataplane: the pod's interface and the guest's tap are ports of a bridge in the pod's namespace.

The guest takes the interface's MAC over, because the world already knows the pod by it; the interface must then have
another one, or the bridge would keep the guest's frames for itself. IPv6 is off on all three devices before they come
up: nothing of the pod's namespace may speak on the guest's wire. Where there is something to be done at the edge, the
programs sit at both ports' ingress, before the bridge sees a frame.
"""

from __future__ import annotations

from shim.network.addressing.mac import derived_mac
from shim.network.dataplanes.vacate import disable_ipv6, quiet_ipv6, vacate
from shim.network.dataplanes.wiring import Phases, Wiring
from shim.network.operations import (
    CreateBridge,
    DelLink,
    Enslave,
    Release,
    SetMac,
    SetMtu,
    SetUp,
    Step,
    StopLearning,
)


def wire(wiring: Wiring) -> Phases:
    """All steps."""
    link, layout, mtu = wiring.link, wiring.layout, wiring.attachment.mtu
    bridge, index = wiring.bridge, wiring.bridge_index
    tap, with_bridge, with_tap = wiring.tap_index, f"goes with {bridge}", f"goes with {wiring.tap}"
    own = derived_mac(wiring.seed, link.name)
    join = [
        Step(
            do=Enslave(index=link.index, link=link.name, master=index, bridge=bridge),
            undo=(Release(index=link.index, link=link.name),),
        ),
        Step(do=StopLearning(index=link.index, link=link.name), lapses=with_bridge),
        Step(do=SetMtu(index=tap, link=wiring.tap, mtu=mtu), lapses=with_tap),
        Step(do=Enslave(index=tap, link=wiring.tap, master=index, bridge=bridge), lapses=with_tap),
    ]
    if wiring.edge.needed:
        join += [*wiring.filters_of_link(), wiring.on_wire(), wiring.filters_of_tap(), wiring.on_guest()]
    join.append(Step(do=SetUp(index=index, link=bridge), lapses=with_bridge))
    join.append(Step(do=SetUp(index=tap, link=wiring.tap), lapses=with_tap))
    return Phases(
        prepare=(*quiet_ipv6(layout, link), *wiring.create_tap()),
        vacate=(
            Step(
                do=CreateBridge(index=index, link=bridge, mac=derived_mac(wiring.seed, f"{link.name}/bridge"), mtu=mtu),
                undo=(DelLink(link=bridge),),
            ),
            wiring.mark(),
            *vacate(layout, link),
            Step(
                do=SetMac(index=link.index, link=link.name, mac=own),
                undo=(SetMac(index=link.index, link=link.name, mac=link.mac),),
            ),
        ),
        settle=(*wiring.silence(bridge), *disable_ipv6(layout, link)),
        join=tuple(join),
    )
