"""The `macvtap` dataplane: a macvtap takes the pod's interface over, and its device is the guest's tap.

In passthru mode both have one MAC and every frame of the interface is the guest's. The guest's frames leave by the
interface's egress, where the program sits that on other dataplanes sits at the tap; so do frames that a process in the
namespace wants the guest to have, with a mark (`programs.TURN_ROUND`), as there is no other way in.
"""

from __future__ import annotations

from shim.errors import NetworkFault
from shim.network import programs
from shim.network.dataplanes.vacate import disable_ipv6, quiet_ipv6, vacate
from shim.network.dataplanes.wiring import Phases, Wiring
from shim.network.operations import (
    CreateMacvtap,
    DelLink,
    OpenMacvtap,
    SetUp,
    Step,
)


def wire(wiring: Wiring) -> Phases:
    """All steps. Raises NetworkFault for a monitor that attaches by name, which this device has no use for."""
    if wiring.options.by_name:
        raise NetworkFault(
            "the monitor attaches its taps by name, and a macvtap is taken as an open device only",
            subject=wiring.link.name,
            remedy="choose the dataplane bridge or mirror",
        )
    link, layout, tap = wiring.link, wiring.layout, wiring.tap_index
    create = CreateMacvtap(index=tap, link=wiring.tap, parent=link.index, mtu=wiring.attachment.mtu)
    from_guest = programs.Path(answer=link.index, inward=True, wire=link.index, turn_round=True)
    return Phases(
        prepare=tuple(quiet_ipv6(layout, link)),
        vacate=(
            wiring.mark(),
            *vacate(layout, link),
            Step(do=create, undo=(DelLink(link=wiring.tap),)),
        ),
        settle=(
            *wiring.silence(wiring.tap),
            *disable_ipv6(layout, link),
            Step(do=OpenMacvtap(link=wiring.tap, vnet_hdr=wiring.options.vnet_hdr), lapses=f"goes with {wiring.tap}"),
        ),
        join=(
            *wiring.filters_of_link(),
            *([wiring.on_wire()] if wiring.edge.needed else []),
            wiring.on_link("egress", "guest", from_guest),
            Step(do=SetUp(index=tap, link=wiring.tap), lapses=f"goes with {wiring.tap}"),
        ),
    )
