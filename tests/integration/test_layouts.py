"""Every layout with every dataplane: what an ordinary pod does there, a guest does too, and undoing leaves no trace.

The traps of pod networks, and what springs each of them here:

| trap | test |
|---|---|
| 1. read the routes, not the prefix | `test_guest_in_every_layout`: ptp, kindnet, azure, onlink-gateway |
| 2. a bridge keeps frames for its own MACs | the same with `bridge`, from the guest's first packet on |
| 3. nothing of ours speaks on the pod's wire | the same: whatever else sends there is caught (`Wiretap`) |
| 4. eth0 is back before CNI DEL | the same: looked at as soon as undoing returns; for DEL `test_reference_plugins.py` |
| 5. gateways that answer nobody | the same: aws, aws-second-nic; with proxy ARP as well: azure |
| 6. the MTU is the smaller of the link's and the route's | the same: cilium, and everywhere packets of just that size |
| 7. the first connection races the next hop's resolution | the same: the first packet is a SYN that is not repeated |
| 8. policy routing | the same: aws-second-nic |
| 9. two unikernels in one pod | `test_network.py::test_second_unikernel_is_refused` |
| 10. an interface that comes later | `test_an_interface_that_comes_later_is_left_alone` |
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from shim.errors import NetworkFault
from shim.network.addressing.interfaces import DATAPLANES
from shim.network.checking.check import Outcome, Probe, check_at
from shim.network.dataplanes.wiring import TapOptions
from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from tests.integration import layouts
from tests.integration.guest_double import GuestDouble, attach_by_name, guest_double
from tests.integration.layouts import Site
from tests.integration.probes import SEED, Probes, own_addresses, plumbed, reached, spoken_by, vantages
from tests.integration.vantage import Vantage
from tests.integration.wiretap import Wiretap


class Places:
    """Layouts that stay while one test after the other uses them, and are built anew once one was left in disorder."""

    def __init__(self) -> None:
        self._name = ""
        self._stack = ExitStack()
        self._site: Site | None = None
        self._pristine: dict[str, Any] = {}

    def site(self, name: str) -> Site:
        """That layout, as its plugin left it."""
        if self._site is None or self._name != name or layouts.dump(self._site.pod) != self._pristine:
            self.close()
            self._site, self._name = self._stack.enter_context(layouts.ALL[name]()), name
            self._pristine = layouts.dump(self._site.pod)
        return self._site

    def close(self) -> None:
        """Take the last one down."""
        self._site = None
        self._stack.close()


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    made = Places()
    yield made
    made.close()


@pytest.mark.parametrize("name", layouts.ALL)
async def test_layout_is_true(places: Places, name: str) -> None:
    """An ordinary pod reaches everything: whatever fails below is not the layout's fault."""
    site = places.site(name)
    async with vantages(site) as targets, Vantage(site.pod, *own_addresses(site)) as pod:
        with Wiretap(site) as wiretap:
            assert await Probes(site, pod, targets).everything() == []
            assert wiretap.intruders() == []
        assert await reached(pod, site.forbidden) == []


#: Where a permanent neighbour entry in the pod stands for a gateway that is not asked.
PINNED = ("aws", "aws-second-nic", "azure")


@pytest.mark.parametrize("dataplane", DATAPLANES)
@pytest.mark.parametrize("name", layouts.ALL)
async def test_guest_in_every_layout(places: Places, name: str, dataplane: str) -> None:
    site = places.site(name)
    if dataplane in site.refusals:
        before = layouts.dump(site.pod)
        with pytest.raises(NetworkFault, match=site.refusals[dataplane]):
            async with await PodNetwork.open(site.path) as network:
                await network.plan(seed=SEED, dataplane=dataplane)
        assert layouts.dump(site.pod) == before
        return
    async with vantages(site) as targets:
        # The world knows the pod by its MAC before there is a guest.
        await asyncio.gather(*(targets[target.namespace].ping(target.own) for target in site.targets))
        async with plumbed(site, dataplane=dataplane) as (_, plan, taps):
            assert tuple(nic.name for nic in plan.guest) == site.interfaces
            for note in site.notes:
                assert any(re.search(note, said) for said in plan.notes), (note, plan.notes)
            with Wiretap(site) as wiretap, guest_double(taps, plan.guest) as guest:
                configure_bare(site, guest)
                async with Vantage(guest.name, *own_addresses(site)) as inside:
                    failures = await Probes(site, inside, targets).everything()
                    for bare in site.bare:
                        await inside.ping(bare.address)
                    failures += [f"{each} answers the guest" for each in await reached(inside, site.forbidden)]
                failures += [f"frames of the pod's own: {frame}" for frame in wiretap.intruders()]
                failures += await spoken_by(site)
                failures += await unproven(name, site, plan)
        assert failures == [], plan.guest
        # Nothing is left in anybody's memory that keeps the ordinary pod from the network.
        await asyncio.gather(*(targets[target.namespace].ping(target.own) for target in site.targets))


async def unproven(name: str, site: Site, plan: Plan) -> list[str]:
    """What `check` finds otherwise than it is."""
    report = await check_at(site.path, plan)
    assert {finding.interface for finding in report.findings} == {nic.name for nic in plan.nics}
    found: list[str] = []
    for finding in report.findings:
        nic = next(nic for nic in plan.nics if nic.name == finding.interface)
        hop = nic.next_hop6 if finding.family == "ipv6" else nic.next_hop
        pointless = not finding.family or (finding.probe is not Probe.GUEST and not hop)
        pinned = finding.probe is Probe.GATEWAY and name in PINNED
        expected = Outcome.NOT_ASKED if pointless or pinned else Outcome.PROVEN
        if finding.outcome is not expected:
            found.append(f"{finding.outcome} and not {expected}: {finding.sentence}")
    return found


def configure_bare(site: Site, guest: GuestDouble) -> None:
    """What the plugin has left to the workload."""
    for bare in site.bare:
        layouts.ip("addr", "add", bare.free, "dev", bare.interface, namespace=guest.name)


@pytest.mark.parametrize("dataplane", DATAPLANES)
@pytest.mark.parametrize("name", ["bridge", "kindnet", "calico-dual-stack", "aws", "cilium"])
async def test_offloads_cross_a_tap_with_headers(places: Places, name: str, dataplane: str) -> None:
    """With virtio-net headers the guest sends and gets segments larger than any frame, checksums left undone."""
    site = places.site(name)
    options = TapOptions(vnet_hdr=True)
    async with vantages(site) as targets, plumbed(site, dataplane=dataplane, tap=options) as (_, plan, taps):
        with guest_double(taps, plan.guest, vnet_hdr=True) as guest:
            async with Vantage(guest.name, *own_addresses(site)) as inside:
                failures = await Probes(site, inside, targets).everything()
                for target in site.targets:
                    await inside.converse(target.address, 1 << 20)
                    await targets[target.namespace].converse(target.own, 1 << 20)
            assert failures == []
            assert guest.largest_sent > 2 * site.mtu and guest.largest_received > 2 * site.mtu


@pytest.mark.parametrize("dataplane", DATAPLANES)
@pytest.mark.parametrize("name", ["flannel", "ovn-kubernetes", "cilium"])
async def test_connections_of_a_guest_that_believes_in_1500(places: Places, name: str, dataplane: str) -> None:
    """Both ends are told the smaller segment on the way, so TCP works for a stack that knows nothing of MTUs."""
    site = places.site(name)
    async with vantages(site) as targets, plumbed(site, dataplane=dataplane) as (_, plan, taps):
        with guest_double(taps, plan.guest, believes_in_1500=True) as guest:
            async with Vantage(guest.name, *own_addresses(site)) as inside:
                for target in site.targets:
                    await inside.converse(target.address)
                    await targets[target.namespace].converse(target.own)


@pytest.mark.parametrize("dataplane", ["bridge", "mirror"])
@pytest.mark.parametrize("vnet_hdr", [False, True])
async def test_monitor_that_attaches_by_name(places: Places, dataplane: str, vnet_hdr: bool) -> None:
    site = places.site("calico-dual-stack")
    options = TapOptions(persistent=True, owner=0, group=0, vnet_hdr=vnet_hdr)
    async with vantages(site) as targets, plumbed(site, dataplane=dataplane, tap=options) as (_, plan, taps):
        assert taps == []
        attached = attach_by_name(site.pod, plan.nics[0].tap, vnet_hdr=vnet_hdr)
        try:
            with guest_double([attached], plan.guest, vnet_hdr=vnet_hdr) as guest:
                async with Vantage(guest.name, *own_addresses(site)) as inside:
                    assert await Probes(site, inside, targets).everything() == []
        finally:
            await close_tap(attached)


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_router_advertisements_configure_nobody_meanwhile(places: Places, dataplane: str) -> None:
    """The router goes on advertising while the guest has the interface; the pod's own stack must not believe it."""
    site = places.site("autoconfigured")
    async with plumbed(site, dataplane=dataplane) as (_, plan, taps), vantages(site) as targets:
        with Wiretap(site) as wiretap, guest_double(taps, plan.guest) as guest:
            layouts.advertise(site.node, "cni0", "fd00:99::/64")
            async with Vantage(guest.name, *own_addresses(site)) as inside:
                assert await Probes(site, inside, targets).everything() == []
            assert "fd00:99" not in layouts.ip("-6", "addr", namespace=site.pod)
            assert wiretap.intruders() == []


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_next_hop_that_gets_another_mac(places: Places, dataplane: str) -> None:
    """A node's veth is made anew, a router fails over: the guest's next question finds out."""
    site = places.site("ptp")
    async with vantages(site) as targets, plumbed(site, dataplane=dataplane) as (_, plan, taps):
        with guest_double(taps, plan.guest) as guest:
            async with Vantage(guest.name, *own_addresses(site)) as inside:
                await inside.ping(site.router)
                layouts.ip("link", "set", "ptppod", "address", "02:00:5e:77:77:77", namespace=site.node)
                # Linux asks again after half a minute or so; here it forgets at once.
                layouts.ip("neigh", "flush", "all", namespace=guest.name)
                failures = []
                for _ in range(2):  # the first packet asks, and may be lost with the old MAC on it
                    failures = await Probes(site, inside, targets).everything()
                assert failures == []


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_an_interface_that_comes_later_is_left_alone(dataplane: str) -> None:
    """Hot-plugged by Multus-like tools: the guest has the interfaces that were there when its sandbox was made. The
    later one stays as it came, also when everything else is undone, and the next sandbox finds it."""
    with layouts.ALL["bridge"]() as site:
        before = layouts.dump(site.pod)
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED, dataplane=dataplane)
            taps = await network.apply(plan)
            lines = "link add net1 type veth peer name later\naddr add 192.168.9.2/24 dev net1\nlink set later up"
            layouts.configure(site.pod, f"{lines}\nlink set net1 up")
            with guest_double(taps, plan.guest) as guest:
                async with Vantage(guest.name) as inside:
                    await inside.ping(site.router)
            await network.undo(plan)
            await asyncio.gather(*(close_tap(tap) for tap in taps))
            await network.settled()
            after = layouts.dump(site.pod)
            later = {"net1", "later"}
            assert layouts.differences(layouts.without(before, set()), layouts.without(after, later)) == []
            assert "192.168.9.2/24" in layouts.ip("addr", namespace=site.pod)
            again = await network.plan(seed=SEED, dataplane=dataplane)
            assert {nic.name for nic in again.guest} == {"eth0", "net1", "later"}
