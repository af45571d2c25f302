"""A pod's topology as a real kernel has it: each dataplane in several layouts, and what is broken by hand is marked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from typing import NamedTuple

import msgspec
import pytest
import uvloop

from shim.network.addressing.interfaces import DATAPLANES
from shim.network.dataplanes.wiring import TapOptions
from shim.network.kernel.namespace import open_namespace
from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from shim.network.topology.assembling import Subject, survey
from shim.network.topology.model import Element, Topology
from tests.integration import layouts, paths
from tests.integration.guest_double import attach_by_name, guest_double
from tests.integration.layouts import Site
from tests.integration.layouts.namespaces import NAMED
from tests.integration.probes import SEED
from tests.unit.network.topology.made_up import places

#: The layouts, each with the node's interface that has its neighbour entries for the pod's eth0, "" where the router is
#: elsewhere, and the dataplanes that serve all its interfaces.
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bridge": ("cni0", DATAPLANES),
    "calico-dual-stack": ("calipod", DATAPLANES),
    "multus": ("cni0", ("mirror",)),
    "macvlan": ("", ("mirror",)),
}
PAIRS = [(layout, dataplane) for layout, (_, dataplanes) in LAYOUTS.items() for dataplane in dataplanes]
STRANGER = "02:00:00:00:00:99"


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(layout: str) -> Iterator[Site]:
    made: AbstractContextManager[Site] = layouts.ALL[layout]()
    with made as site:
        yield site


@pytest.fixture(scope="module")
def subnet() -> Iterator[Site]:
    with layouts.bridged() as site:
        yield site


async def look(site: Site, plan: Plan | None = None) -> Topology:
    """The topology, as the daemon of the site's node would read it."""
    with ExitStack() as closing:
        pod = await open_namespace(site.path)
        closing.callback(pod.close)
        node = await open_namespace(NAMED / site.node)
        closing.callback(node.close)
        return await survey(pod, Subject(sandbox=SEED if plan else "", plan=plan), node)


@asynccontextmanager
async def plumbed(site: Site, dataplane: str, tap: TapOptions | None = None) -> AsyncIterator[tuple[Plan, list[int]]]:
    """The pod plumbed, its taps open."""
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane, tap=tap)
        taps = await network.apply(plan)
        try:
            yield plan, taps
        finally:
            await network.undo(plan)
            await asyncio.gather(*(close_tap(tap) for tap in taps))
            await network.settled()


@asynccontextmanager
async def with_guest(site: Site, dataplane: str) -> AsyncIterator[Plan]:
    """The pod plumbed, and its guest known to the router."""
    async with plumbed(site, dataplane) as (plan, taps):
        with guest_double(taps, plan.guest):
            assert await asyncio.to_thread(layouts.pings, site.node, site.address, count=1)
            yield plan


def elements(topology: Topology, nic: str = "eth0") -> dict[str, Element]:
    """By sort."""
    (chain,) = (chain for chain in topology.now if chain.nic == nic)
    return {element.sort: element for element in chain.elements}


def shown(namespace: str, device: str) -> dict[str, object]:
    """What ip(8) says of an interface."""
    found: list[dict[str, object]] = json.loads(layouts.ip("-d", "-j", "link", "show", device, namespace=namespace))
    return found[0]


@pytest.mark.parametrize(("layout", "dataplane"), PAIRS, indirect=["layout"], scope="module")
async def test_as_planned_nothing_is_wrong_and_all_is_as_ip_says(layout: str, site: Site, dataplane: str) -> None:
    left = await look(site)
    assert not left.plumbed and left.before == ()
    async with with_guest(site, dataplane) as plan:
        found = await look(site, plan)
        assert found.faults == (), found.faults
        assert [chain.nic for chain in found.now] == list(site.interfaces)
        assert all(joint.whole for chain in found.now for joint in chain.joints)
        for chain in found.now:
            for element in chain.elements:
                if element.place == "guest":
                    continue
                said = shown(site.pod if element.place == "pod" else site.node, element.name)
                assert (said["address"], said["mtu"]) == (element.mac, element.mtu)
        now = elements(found)
        assert now["guest"].mac == site.mac and now["guest"].addresses[0].partition("/")[0] == site.address
        holders = [element for element in now.values() if element.neighbours]
        assert [holder.name for holder in holders] == [name for name in (LAYOUTS[layout][0],) if name]
        for holder in holders:
            assert {entry.address: entry.mac for entry in holder.neighbours}[site.address] == site.mac
        # Before is what the namespace was, read when it was.
        for before, was in zip(found.before, left.now, strict=True):
            interface, there = before.elements[1], was.elements[1]
            assert (interface.mac, interface.mtu, interface.addresses) == (there.mac, there.mtu, there.addresses)
            assert set(before.elements[0].routes) == set(was.elements[0].routes)
        bare = await look(site)
        assert bare.plumbed and bare.id == SEED and bare.faults == ()
        assert [[element.name for element in chain.elements[1:]] for chain in bare.now] == [
            [element.name for element in chain.elements[1:]] for chain in found.now
        ]
    after = await look(site)
    assert not after.plumbed
    for one, other in zip(after.now, left.now, strict=True):
        assert one.elements[:2] == other.elements[:2]


class Breaking(NamedTuple):
    """What somebody does in the pod's namespace or the node's, and the faults that it makes."""

    dataplane: str
    where: str
    command: str
    codes: list[str]


BREAKINGS = {
    "tap down": Breaking("mirror", "pod", "ip link set tap0 down", ["tap-down"]),
    "tap gone": Breaking("mirror", "pod", "ip link del tap0", ["tap-missing"]),
    "macvtap gone": Breaking("macvtap", "pod", "ip link del tap0", ["tap-missing"]),
    "filter gone": Breaking("mirror", "pod", "tc filter del dev tap0 ingress", ["program-missing"]),
    "filters gone": Breaking("mirror", "pod", "tc qdisc del dev eth0 clsact", ["program-missing"]),
    "macvtap's filter gone": Breaking("macvtap", "pod", "tc filter del dev eth0 egress", ["program-missing"]),
    "no port": Breaking("bridge", "pod", "ip link set tap0 nomaster", ["no-port"]),
    "port blocked": Breaking("bridge", "pod", "bridge link set dev tap0 state 0", ["port-state"]),
    "learning": Breaking("bridge", "pod", "bridge link set dev eth0 learning on", ["port-learning"]),
    "bridge gone": Breaking("bridge", "pod", "ip link del br0", ["bridge-missing"]),
    "bridge down": Breaking("bridge", "pod", "ip link set br0 down", ["bridge-down"]),
    "address": Breaking("bridge", "pod", "ip addr add {address}/16 dev eth0", ["address-held"]),
    "guest's MAC": Breaking("bridge", "pod", "ip link set eth0 address {mac}", ["interface-mac"]),
    "MAC": Breaking("mirror", "pod", f"ip link set eth0 address {STRANGER}", ["interface-mac"]),
    "alias": Breaking("mirror", "pod", "ip link set eth0 alias another", ["mark"]),
    "IPv6": Breaking("mirror", "pod", "sysctl -qw net.ipv6.conf.tap0.disable_ipv6=0", ["ipv6-on"]),
    "MTU": Breaking("mirror", "pod", "ip link set tap0 mtu 1400", ["tap-mtu"]),
    "peer down": Breaking("mirror", "node", "ip link set vethpod down", ["peer-down"]),
    "peer's MTU": Breaking("mirror", "node", "ip link set vethpod mtu 1400", ["peer-mtu"]),
    "switch down": Breaking("mirror", "node", "ip link set cni0 down", ["switch-down"]),
    "neighbour": Breaking(
        "macvtap", "node", f"ip neigh replace {{address}} lladdr {STRANGER} dev cni0 nud permanent", ["neighbour-mac"]
    ),
    "nobody answered": Breaking(
        "mirror", "node", "ip neigh replace {address} dev cni0 nud failed", ["neighbour-failed"]
    ),
    "elsewhere": Breaking(
        "mirror", "node", "bridge fdb replace {mac} dev vethpeer master dynamic", ["guest-elsewhere"]
    ),
    "behind the wire": Breaking(
        "bridge", "pod", "bridge fdb replace {mac} dev eth0 master dynamic", ["guest-behind-wire"]
    ),
}
#: What puts right again what undoing does not touch.
_MENDING = (
    "ip link set vethpod up mtu 1500",
    "ip link set cni0 up",
    "ip neigh del {address} dev cni0",
    "bridge fdb del {mac} dev vethpeer master",
)


@pytest.mark.parametrize("name", BREAKINGS)
async def test_what_is_broken_is_marked(subnet: Site, name: str) -> None:
    breaking, site = BREAKINGS[name], subnet
    async with plumbed(site, breaking.dataplane) as (plan, _):
        assert (await look(site, plan)).faults == ()
        done = run(site.pod if breaking.where == "pod" else site.node, breaking.command, site)
        assert done.returncode == 0, done.stderr
        found = await look(site, plan)
        for command in _MENDING if breaking.where == "node" else ():
            run(site.node, command, site)
    run(site.pod, "ip link set eth0 address {mac}", site)
    assert [fault.code for fault in found.faults] == breaking.codes, found.faults
    assert {fault.at for fault in found.faults} <= places(found)
    layouts.settle(site.node)


def run(namespace: str, command: str, site: Site) -> subprocess.CompletedProcess[str]:
    return layouts.inside(namespace, *command.format(address=site.address, mac=site.mac).split())


async def test_what_to_do_about_it_helps(subnet: Site) -> None:
    """The commands that are shown, taken as they are."""
    commands = ("ip link set tap0 down", "ip link set eth0 nomaster", "ip addr add {address}/16 dev eth0")
    async with with_guest(subnet, "bridge") as plan:
        for command in commands:
            assert run(subnet.pod, command, subnet).returncode == 0
        found = await look(subnet, plan)
        assert len(found.faults) >= len(commands)
        for fault in found.faults:
            subprocess.run(fault.remedy, shell=True, check=True)
        # The learning of a port is a new one's.
        again = await look(subnet, plan)
        for fault in again.faults:
            subprocess.run(fault.remedy, shell=True, check=True)
        assert (await look(subnet, plan)).faults == ()
        assert await asyncio.to_thread(layouts.pings, subnet.node, subnet.address)


@pytest.mark.parametrize("dataplane", DATAPLANES)
async def test_a_guest_with_another_mac_is_seen(subnet: Site, dataplane: str) -> None:
    async with plumbed(subnet, dataplane) as (plan, taps):
        told = msgspec.structs.replace(plan.guest[0], mac=STRANGER)
        # What the bridges learned of the pod's own MAC is forgotten in minutes; here it is made to be.
        run(subnet.node, "bridge fdb del {mac} dev vethpod master", subnet)
        with guest_double(taps, [told]) as guest:
            await asyncio.to_thread(layouts.pings, guest.name, subnet.router, count=1, wait=0.2)
            found = await look(subnet, plan)
    by_code = {fault.code: fault for fault in found.faults}
    assert STRANGER in by_code["guest-mac"].sentence, found.faults
    layouts.ip("neigh", "flush", "all", namespace=subnet.node)


async def test_a_monitor_that_is_gone_leaves_a_tap_that_nobody_has_open(subnet: Site) -> None:
    options = TapOptions(persistent=True, owner=65534, group=0)
    async with plumbed(subnet, "mirror", options) as (plan, _):
        attached = attach_by_name(subnet.pod, "tap0")
        try:
            found = await look(subnet, plan)
            assert found.faults == () and "by user 65534" in elements(found)["tap"].words[0]
        finally:
            os.close(attached)
        found = await look(subnet, plan)
        assert [fault.code for fault in found.faults] == ["tap-not-open"]


async def test_an_interface_of_another_namespace_with_the_peers_index_is_not_taken_for_it() -> None:
    """The pod's eth0 leads to a namespace that is not the node's."""
    with layouts.bridged() as site:
        layouts.ip("link", "set", "vethpod", "netns", site.peer, namespace=site.node)
        found = await look(site)
        assert elements(found)["peer"].name == "out of sight" and elements(found)["peer"].words


def test_on_uvloop_many_at_once(subnet: Site) -> None:
    async def run() -> list[Topology]:
        async with plumbed(subnet, "mirror") as (plan, _):
            return await asyncio.gather(*(look(subnet, plan) for _ in range(20)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run())
    assert [each.faults for each in found] == [()] * 20


async def test_cancelled_at_any_moment_it_leaves_nothing_open(subnet: Site) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for delay in (0, 0.0002, 0.0005, 0.001, 0.002, 0.005):
        task = asyncio.create_task(look(subnet))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
    assert sorted(os.listdir("/proc/self/fd")) == before


# The command on a bare namespace.


def command(site: Site, *words: str, columns: int = 0) -> subprocess.CompletedProcess[str]:
    """The command line as an operator of the node types it, with no service."""
    argv = ["ip", "netns", "exec", site.node, str(paths.DAEMON), "topology", *words]
    environment = {**os.environ, "COLUMNS": str(columns)} if columns else dict(os.environ)
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=environment)


async def test_a_bare_namespace_from_the_command_line(subnet: Site) -> None:
    async with plumbed(subnet, "mirror"):
        done = await asyncio.to_thread(command, subnet, "--netns", subnet.pod, columns=60)
        assert done.returncode == 0, done.stderr
        assert "known to the service alone" in done.stdout and "unikernel-guest" in done.stdout
        assert "10.88.0.1/16" in done.stdout and max(map(len, done.stdout.splitlines())) <= 60
        as_json = await asyncio.to_thread(command, subnet, "--netns", str(subnet.path), "--json")
        assert msgspec.json.decode(as_json.stdout, type=Topology).id == SEED
        layouts.ip("link", "set", "tap0", "down", namespace=subnet.pod)
        done = await asyncio.to_thread(command, subnet, "--netns", subnet.pod, "--svg", "-")
        assert done.returncode == 1 and done.stdout.startswith("<svg") and "tap0 is down" in done.stdout


BAD_WORDS: dict[str, tuple[Callable[[Site], list[str]], int, str]] = {
    "nothing": (lambda _: [], 2, "give POD or --netns"),
    "both": (lambda site: ["web", "--netns", site.pod], 2, "give POD or --netns"),
    "no such namespace": (lambda _: ["--netns", "nowhere"], 1, "no such network namespace"),
    "no namespace at all": (lambda _: ["--netns", "/etc/passwd"], 1, "not a network namespace"),
    "the node's own": (lambda site: ["--netns", site.node], 1, "the host's own"),
    "two forms": (lambda site: ["--netns", site.pod, "--json", "--svg", "-"], 2, "only one makes sense"),
    "a file that cannot be": (lambda site: ["--netns", site.pod, "--svg", "/proc/no/such.svg"], 1, "cannot be written"),
}


@pytest.mark.parametrize("case", BAD_WORDS)
def test_what_makes_no_sense_is_said_in_a_line(subnet: Site, case: str) -> None:
    words, code, says = BAD_WORDS[case]
    done = command(subnet, *words(subnet))
    assert done.returncode == code and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
