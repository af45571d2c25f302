"""What `check` proves of a guest, and how it tells what is wrong: real namespaces, a kernel stack as the guest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from shim.network.addressing.interfaces import DATAPLANES
from shim.network.checking.check import Finding, Outcome, Probe, Report, check_at
from shim.network.checking.frames import open_frames
from shim.network.kernel.namespace import open_namespace
from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from tests.integration import layouts
from tests.integration.guest_double import guest_behind
from tests.integration.layouts import Site

LAYOUTS: dict[str, Callable[[], AbstractContextManager[Site]]] = {
    "subnet": layouts.bridged,
    "slash32": layouts.routed,
    "ptp": layouts.pointed,
}
#: The node's interface that holds its neighbour entry for the pod.
TOWARDS_POD = {"subnet": "cni0", "slash32": "calipod", "ptp": "ptppod"}
SEED = "0123456789abcdef"
STRANGER = "02:00:00:00:00:99"


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(layout: str) -> Iterator[Site]:
    with LAYOUTS[layout]() as made:
        yield made


@asynccontextmanager
async def plumbed(
    site: Site, *, mac: str = "", answers: bool = True, dataplane: str = "auto"
) -> AsyncIterator[tuple[Plan, str]]:
    """The pod plumbed, with a guest that has `mac` (its own by default) or that is not there at all; its namespace."""
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane)
        taps = await network.apply(plan)
        try:
            if answers:
                told = plan.guest[0]
                async with guest_behind(taps[0], msgspec.structs.replace(told, mac=mac or told.mac)) as guest:
                    yield plan, guest
            else:
                yield plan, ""
        finally:
            await network.undo(plan)
            await asyncio.gather(*(close_tap(tap) for tap in taps))


def by_probe(report: Report, family: str = "ipv4") -> dict[Probe, Finding]:
    return {finding.probe: finding for finding in report.findings if finding.family == family}


def outcomes(report: Report, family: str = "ipv4") -> dict[str, str]:
    return {probe.value: finding.outcome.value for probe, finding in by_probe(report, family).items()}


ALL_PROVEN = {"guest": "proven", "gateway": "proven", "router": "proven"}


async def test_what_it_says_when_all_is_proven(site: Site) -> None:
    async with plumbed(site) as (plan, _):
        report = await check_at(site.path, plan)
        assert outcomes(report) == ALL_PROVEN, report
        assert not report.failed and report.took < 1.0
        found = by_probe(report)
        assert site.mac in found[Probe.GUEST].sentence and site.mac in found[Probe.ROUTER].sentence
        assert site.gateway in found[Probe.GATEWAY].sentence


def test_on_uvloop(site: Site) -> None:
    async def run() -> Report:
        async with plumbed(site) as (plan, _):
            return await check_at(site.path, plan)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert outcomes(runner.run(run())) == ALL_PROVEN


async def test_it_changes_nothing_and_nothing_stays(site: Site) -> None:
    """The guest goes on believing in its gateway, and the router in the guest."""
    async with plumbed(site) as (plan, guest):
        assert await asyncio.to_thread(layouts.pings, guest, site.router)
        before, pod = neighbours(guest), left(site.pod)
        assert before
        for _ in range(3):
            assert not (await check_at(site.path, plan)).failed
        assert neighbours(guest) == before
        assert left(site.pod) == pod
        assert await asyncio.to_thread(layouts.pings, guest, site.router)
        assert await asyncio.to_thread(layouts.pings, site.peer, site.address)


def left(pod: str) -> tuple[object, ...]:
    """What of the pod's namespace does not move by itself."""
    found = layouts.dump(pod)
    names = [(link["ifname"], link["flags"], link.get("address")) for link in found["links"]]
    return names, found["routes"], found["routes6"], found["neighbours"], found["settings"]


def neighbours(namespace: str) -> dict[str, str]:
    """MACs by IPv4 address."""
    lines = (line.split() for line in layouts.ip("-4", "neigh", namespace=namespace).splitlines())
    return {words[0]: words[words.index("lladdr") + 1] for words in lines if "lladdr" in words}


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_a_guest_with_another_mac_is_named(dataplane: str, site: Site) -> None:
    async with plumbed(site, mac=STRANGER, dataplane=dataplane) as (plan, _):
        report = await check_at(site.path, plan)
        guest = by_probe(report)[Probe.GUEST]
        assert guest.outcome is Outcome.WRONG and report.failed
        assert STRANGER in guest.sentence and site.mac in guest.sentence and guest.remedy


async def test_a_guest_that_nobody_can_find() -> None:
    """One that hears its own MAC alone answers whoever has met it, and nobody else."""
    with layouts.bridged() as site:
        async with plumbed(site) as (plan, guest):
            rules = (
                "table netdev deaf { chain in { type filter hook ingress device eth0 priority 0; "
                "ether daddr ff:ff:ff:ff:ff:ff drop; }; }"
            )
            done = layouts.inside(guest, "nft", rules)
            assert done.returncode == 0, done.stderr
            report = await check_at(site.path, plan)
            found = by_probe(report)[Probe.GUEST]
            assert found.outcome is Outcome.WRONG and "only what is sent to its own MAC" in found.sentence, report
            assert found.remedy


@pytest.mark.parametrize("state", ["permanent", "reachable"])
@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_a_router_that_holds_another_mac_is_named(dataplane: str, state: str, layout: str, site: Site) -> None:
    """One that has merely learned it corrects itself by the next thing it hears, so it must be asked before."""
    async with plumbed(site, dataplane=dataplane) as (plan, _):
        entry = (site.address, "lladdr", STRANGER, "dev", TOWARDS_POD[layout], "nud", state)
        layouts.ip("neigh", "replace", *entry, namespace=site.node)
        report = await check_at(site.path, plan)
        if (layout, state) == ("slash32", "reachable"):
            # A proxy answers nobody who gives no name, and the name it is then given corrects it.
            assert outcomes(report) == ALL_PROVEN, report
            return
        router = by_probe(report)[Probe.ROUTER]
        assert router.outcome is Outcome.WRONG and report.failed, report
        assert STRANGER in router.sentence and site.mac in router.sentence and router.remedy
        assert outcomes(report)["guest"] == outcomes(report)["gateway"] == "proven"


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_a_guest_that_is_not_there(dataplane: str, site: Site) -> None:
    async with plumbed(site, answers=False, dataplane=dataplane) as (plan, _):
        report = await check_at(site.path, plan)
        found = by_probe(report)
        # A router that has learned the pod's MAC already, as from the first question, need not ask the guest.
        assert found[Probe.ROUTER].outcome in (Outcome.PROVEN, Outcome.UNANSWERED)
        assert found[Probe.GATEWAY].outcome is Outcome.PROVEN
        assert found[Probe.GUEST].outcome is Outcome.UNANSWERED and found[Probe.GUEST].remedy
        assert report.failed and report.took < 1.3


async def test_a_gateway_that_is_down(layout: str, site: Site) -> None:
    veth = {"subnet": "vethpod"}.get(layout, TOWARDS_POD[layout])
    async with plumbed(site) as (plan, _):
        layouts.ip("link", "set", veth, "down", namespace=site.node)
        report = await check_at(site.path, plan)
        assert outcomes(report) == {"guest": "proven", "gateway": "unanswered", "router": "not asked"}
        assert report.failed and site.gateway in by_probe(report)[Probe.GATEWAY].sentence


async def test_a_namespace_that_is_gone() -> None:
    with layouts.bridged() as site:
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED)
    report = await check_at(site.path, plan)
    assert outcomes(report) == {"guest": "unanswered"} and report.failed
    assert str(site.path) in report.findings[0].sentence


async def test_a_pod_whose_network_was_taken_away(site: Site) -> None:
    async with plumbed(site) as (plan, _):
        layouts.ip("link", "del", plan.nics[0].tap, namespace=site.pod)
        report = await check_at(site.path, plan)
        assert outcomes(report)["guest"] == "unanswered" and report.failed
        assert plan.nics[0].tap in report.findings[0].sentence


def descriptors() -> list[str]:
    return sorted(os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


async def test_cancelled_at_any_moment_it_leaves_nothing_open() -> None:
    with layouts.bridged() as site:
        async with plumbed(site, answers=False) as (plan, _):
            before = descriptors()
            for delay in (0, 0.0005, 0.001, 0.002, 0.01, 0.1, 0.4):
                task = asyncio.create_task(check_at(site.path, plan))
                await asyncio.sleep(delay)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert descriptors() == before, f"after {delay} s"


async def test_a_pods_own_traffic_is_not_looked_at() -> None:
    with layouts.bridged() as site:
        async with plumbed(site) as (plan, guest):
            namespace = await open_namespace(site.path)
            frames = await open_frames(namespace, plan.nics[0].name)
            seen: list[bytes] = []
            try:
                listening = asyncio.create_task(frames.ask(lambda _: (), lambda frame, _: seen.append(frame), (1.0,)))
                talk = "for i in 1 2 3; do echo > /dev/udp/10.88.0.1/9; echo > /dev/tcp/10.88.0.1/9; done"
                await asyncio.to_thread(layouts.inside, guest, "bash", "-c", talk)
                assert await asyncio.to_thread(layouts.pings, guest, site.router)
                await listening
            finally:
                frames.close()
                namespace.close()
            # ARP, and ICMP over IPv4 or IPv6; what the ports that nobody listens at bring back is ICMP too.
            kinds = {(frame[12:14], frame[23] if frame[12:14] == b"\x08\x00" else frame[20]) for frame in seen}
            assert (b"\x08\x00", 1) in kinds
            assert {kind for kind in kinds if kind[0] != b"\x08\x06"} <= {(b"\x08\x00", 1), (b"\x86\xdd", 58)}


async def test_many_at_once() -> None:
    with layouts.bridged() as site:
        async with plumbed(site) as (plan, _):
            reports = await asyncio.gather(*(check_at(site.path, plan) for _ in range(20)))
            assert [report for report in reports if report.failed] == []


@asynccontextmanager
async def dual_stack(site: Site) -> AsyncIterator[tuple[Plan, str]]:
    """The subnet layout with IPv6 as well. The plan's second family is written in by hand: here the checks are tested,
    and the bridge passes IPv6 as it is."""
    layouts.ip("-6", "addr", "add", "2001:db8:7::1/64", "dev", "cni0", "nodad", namespace=site.node)
    async with plumbed(site) as (plan, guest):
        layouts.ip("-6", "addr", "add", "2001:db8:7::2/64", "dev", "eth0", "nodad", namespace=guest)
        nic = msgspec.structs.replace(
            plan.nics[0], address6="2001:db8:7::2/64", gateway6="2001:db8:7::1", next_hop6="2001:db8:7::1"
        )
        yield msgspec.structs.replace(plan, nics=(nic,)), guest


async def test_ipv6_is_proven_too() -> None:
    with layouts.bridged() as site:
        layouts.inside(site.node, "sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1")
        async with dual_stack(site) as (plan, _):
            report = await check_at(site.path, plan)
            assert outcomes(report) == outcomes(report, "ipv6") == ALL_PROVEN, report


async def test_ipv6_that_is_wrong() -> None:
    with layouts.bridged() as site:
        async with dual_stack(site) as (plan, guest):
            entry = ("2001:db8:7::2", "lladdr", STRANGER, "dev", "cni0", "nud", "permanent")
            layouts.ip("-6", "neigh", "replace", *entry, namespace=site.node)
            layouts.ip("-6", "addr", "del", "2001:db8:7::2/64", "dev", "eth0", namespace=guest)
            report = await check_at(site.path, plan)
            assert outcomes(report) == ALL_PROVEN, report
            assert outcomes(report, "ipv6") == {"guest": "unanswered", "gateway": "proven", "router": "wrong"}


async def test_an_ipv4_route_by_an_ipv6_next_hop() -> None:
    """RFC 5549: the next hop is found by neighbour discovery, and the router is known by what dies there."""
    with layouts.bridged() as site:
        layouts.ip("route", "replace", "default", "dev", "lo", namespace=site.node)
        layouts.inside(site.node, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        layouts.ip("-6", "addr", "add", "fe80::1/64", "dev", "cni0", "nodad", namespace=site.node)
        async with plumbed(site) as (plan, _):
            nic = msgspec.structs.replace(plan.nics[0], next_hop="fe80::1")
            report = await check_at(site.path, msgspec.structs.replace(plan, nics=(nic,)))
            assert outcomes(report) == ALL_PROVEN, report
            assert "neighbour discovery" in by_probe(report)[Probe.GATEWAY].sentence


async def test_what_is_not_asked() -> None:
    with layouts.bridged() as site:
        async with plumbed(site) as (plan, _):
            lonely = msgspec.structs.replace(plan.nics[0], next_hop="", gateway="")
            report = await check_at(site.path, msgspec.structs.replace(plan, nics=(lonely,)))
            assert outcomes(report) == {"guest": "proven", "gateway": "not asked", "router": "not asked"}
            bare = msgspec.structs.replace(plan.nics[0], address="")
            report = await check_at(site.path, msgspec.structs.replace(plan, nics=(bare,)))
            assert [(finding.outcome, finding.failed) for finding in report.findings] == [(Outcome.NOT_ASKED, False)]
