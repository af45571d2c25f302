"""Plumbing in real namespaces, with a second kernel stack as the guest."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from shim.errors import NetworkFault
from shim.network.addressing.interfaces import DATAPLANES
from shim.network.dataplanes.wiring import TapOptions
from shim.network.kernel.namespace import NamespaceGone
from shim.network.kernel.tap import close_tap
from shim.network.layout import Layout
from shim.network.operations import LocalOperation, Operation, SetMac, SetSysctl
from shim.network.plan import Nic, Plan
from shim.network.pod import PodNetwork, open_tap_at, undo_at
from tests.integration import layouts
from tests.integration.guest_double import guest_behind, guest_double
from tests.integration.layouts import Site

Make = Callable[[], AbstractContextManager[Site]]
LAYOUTS: dict[str, Make] = {"subnet": layouts.bridged, "slash32": layouts.routed, "ptp": layouts.pointed}
SEED = "0123456789abcdef"


@pytest.fixture(params=DATAPLANES)
def dataplane(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=LAYOUTS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with LAYOUTS[request.param]() as made:
        yield made


@asynccontextmanager
async def plumbed(site: Site, **options: Any) -> AsyncIterator[tuple[PodNetwork, Plan, list[int]]]:
    """A plumbed pod; undone and closed afterwards."""
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, **options)
        taps = await network.apply(plan)
        try:
            yield network, plan, taps
        finally:
            await taken_back(network, plan, taps)


async def taken_back(network: PodNetwork, plan: Plan, taps: list[int]) -> None:
    """Undo, and wait for what goes on in the background."""
    await network.undo(plan)
    await asyncio.gather(*(close_tap(tap) for tap in taps))
    await network.settled()


async def pings(namespace: str, address: str, **options: Any) -> bool:
    return await asyncio.to_thread(layouts.pings, namespace, address, **options)


async def test_guest_and_world_reach_each_other(site: Site, dataplane: str) -> None:
    """The router learned the pod's MAC before the guest took it over, as routers have."""
    assert await pings(site.node, site.address)
    assert await pings(site.peer, site.address)
    async with plumbed(site, dataplane=dataplane) as (_, plan, taps), guest_behind(taps[0], plan.guest[0]) as guest:
        told = plan.guest[0]
        assert told.mac == site.mac and told.address is not None and str(told.address.ip) == site.address
        outcomes = {
            "router to guest": await pings(site.node, site.address),
            "peer to guest": await pings(site.peer, site.address),
            "guest to router": await pings(guest, site.router),
            "guest to peer": await pings(guest, site.peer_address),
            "guest to gateway": site.gateway != str(told.gateway) or await pings(guest, site.gateway),
            "full-sized frames out": await pings(guest, site.router, size=1472),
            "full-sized frames in": await pings(site.peer, site.address, size=1472),
        }
        layouts.ip("neigh", "flush", "all", namespace=site.node)
        layouts.ip("neigh", "flush", "all", namespace=site.peer)
        outcomes["router that forgot the guest"] = await pings(site.node, site.address)
        outcomes["peer that forgot the guest"] = await pings(site.peer, site.address)
        assert all(outcomes.values()), outcomes
        assert not layouts.pings(site.pod, site.router), "the pod's namespace itself must be silent"


SERVE = """
import socket, sys
with socket.create_server((sys.argv[1], 8080)) as server:
    print("ready", flush=True)
    peer, _ = server.accept()
    with peer:
        while data := peer.recv(65536):
            peer.sendall(data)
"""
ECHO = """
import hashlib, os, socket, sys, threading
data = os.urandom(1 << 20)
with socket.create_connection((sys.argv[1], 8080), timeout=10) as peer:
    threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)), daemon=True).start()
    back = b"".join(iter(lambda: peer.recv(65536), b""))
sys.exit(hashlib.sha256(back).digest() != hashlib.sha256(data).digest())
"""


async def echoed(server: str, client: str, address: str) -> None:
    """A megabyte from `client` to `address` in the namespace `server` and back, compared byte for byte."""
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", server, sys.executable, "-c", SERVE, address, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    done = await asyncio.to_thread(layouts.inside, client, sys.executable, "-c", ECHO, address)
    if process.returncode is None and done.returncode:
        process.kill()
    assert done.returncode == 0, done.stderr
    assert await process.wait() == 0


@pytest.mark.parametrize("vnet_hdr", [False, True])
async def test_a_megabyte_there_and_back_byte_for_byte(site: Site, dataplane: str, vnet_hdr: bool) -> None:
    """Segmentation and checksum offload of the veth must not leak into a tap that has no header to say so, and cross
    one that has."""
    async with plumbed(site, dataplane=dataplane, tap=TapOptions(vnet_hdr=vnet_hdr)) as (_, plan, taps):
        with guest_double(taps, plan.guest, vnet_hdr=vnet_hdr) as guest:
            await echoed(guest.name, site.peer, site.address)
            await echoed(site.peer, guest.name, site.peer_address)
            for largest in (guest.largest_sent, guest.largest_received):
                assert (largest > 1514) is vnet_hdr


@pytest.mark.parametrize("address", ["10.244.7.191", "10.244.7.0", "10.244.6.255"])
async def test_awkward_addresses_of_the_slash32_layout(address: str) -> None:
    """Last, first, or both of the smallest prefixes: the guest needs a longer look for one that fits."""
    with layouts.routed(pod_address=address) as site:
        async with plumbed(site) as (_, plan, taps), guest_behind(taps[0], plan.guest[0]) as guest:
            assert await pings(guest, site.router)
            assert await pings(guest, site.peer_address)
            assert await pings(site.peer, site.address)


def without_moving_the_mac(plan: Plan) -> Plan:
    """What the runtimes before did: the interface keeps its MAC and the guest gets one of its own."""
    steps = tuple(step for step in plan.steps if not isinstance(step.do, SetMac))
    nics: tuple[Nic, ...] = tuple(msgspec.structs.replace(nic, mac="02:00:00:00:00:77") for nic in plan.nics)
    return msgspec.structs.replace(plan, steps=steps, nics=nics)


@pytest.mark.parametrize("keep_mac", [True, False])
async def test_slash32_needs_the_mac(keep_mac: bool) -> None:
    """Calico's Felix pins the pod's address to eth0's MAC on the node; a guest with any other is cut off."""
    with layouts.routed() as site:
        layouts.ip(
            "neigh", "add", site.address, "lladdr", site.mac, "dev", "calipod", "nud", "permanent", namespace=site.node
        )
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED, dataplane="bridge")
            plan = plan if keep_mac else without_moving_the_mac(plan)
            taps = await network.apply(plan)
            async with guest_behind(taps[0], plan.guest[0]) as guest:
                assert await pings(site.node, site.address, wait=0.5) is keep_mac
                assert await pings(guest, site.router, wait=0.5) is keep_mac
            await taken_back(network, plan, taps)


@pytest.mark.parametrize("layout", ["slash32", "ptp"])
async def test_a_next_hop_that_changes_its_mac_is_followed(layout: str, dataplane: str) -> None:
    """The node's end of the veth is replaced, as it is when a CNI agent repairs it: the guest's next question for its
    gateway finds the new one, with nobody watching."""
    with LAYOUTS[layout]() as site:
        outside = {"slash32": "calipod", "ptp": "ptppod"}[layout]
        async with (
            plumbed(site, dataplane=dataplane) as (_, plan, taps),
            guest_behind(taps[0], plan.guest[0]) as guest,
        ):
            assert await pings(guest, site.router)
            layouts.ip("link", "set", outside, "address", "ee:ee:ee:ee:ee:01", namespace=site.node)
            layouts.ip("neigh", "flush", "all", namespace=guest)
            assert await pings(guest, site.router)
            assert await pings(guest, site.peer_address)
            # One that announces itself needs no question at all.
            layouts.ip("link", "set", outside, "address", "ee:ee:ee:ee:ee:02", namespace=site.node)
            await asyncio.to_thread(announce, site.node, outside, "ee:ee:ee:ee:ee:02", site.gateway)
            assert await pings(guest, site.router)


def announce(namespace: str, device: str, mac: str, address: str) -> None:
    """A gratuitous ARP, as routers send when they take an address over (RFC 5227)."""
    sender = "".join(f"{int(part):02x}" for part in address.split("."))
    plain = mac.replace(":", "")
    frame = f"ffffffffffff{plain}08060001080006040002{plain}{sender}{plain}{sender}"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
        "s.bind((sys.argv[1], 0)); s.send(bytes.fromhex(sys.argv[2]))"
    )
    done = layouts.inside(namespace, sys.executable, "-c", code, device, frame)
    assert done.returncode == 0, done.stderr


async def test_gateway_that_answers_nobody() -> None:
    """The AWS VPC plugin's layout: no proxy ARP, but a permanent neighbour entry in the pod."""
    with layouts.routed() as site:
        layouts.inside(site.node, "sysctl", "-q", "-w", "net.ipv4.conf.calipod.proxy_arp=0")
        layouts.ip(
            "neigh", "add", site.gateway, "lladdr", layouts.CALICO_MAC, "dev", "eth0", "nud", "permanent",
            namespace=site.pod,
        )  # fmt: skip
        before = layouts.dump(site.pod)
        async with plumbed(site) as (_, plan, taps), guest_behind(taps[0], plan.guest[0]) as guest:
            assert plan.resolve == ()
            assert await pings(guest, site.router)
            assert await pings(site.peer, site.address)
        assert layouts.dump(site.pod) == before


def enrich(site: Site) -> None:
    """Everything on eth0 that undoing might forget."""
    pod = site.pod
    words = [
        "addr add 198.51.100.7/24 brd + dev eth0 label eth0:extra",
        "addr add 198.51.100.8/24 dev eth0",
        "addr add 203.0.113.9/32 dev eth0 scope link valid_lft 5000 preferred_lft 4000",
        "addr add 192.0.2.77 peer 192.0.2.78/32 dev eth0",
        "addr add 172.31.0.5/20 dev eth0 metric 77",
        "addr add 172.31.64.5/20 dev eth0 noprefixroute",
        "-6 addr add 2001:db8::5/64 dev eth0 nodad",
        "-6 addr add 2001:db8::6/64 dev eth0",
        "-6 addr add 2001:db8:1::7/128 dev eth0 nodad",
        f"route add 10.96.0.0/12 via {site.gateway} dev eth0 metric 50 mtu 1400 advmss 1300 initcwnd 20",
        f"route add 10.97.0.0/16 via {site.gateway} dev eth0 onlink src {site.address} proto 99",
        f"route add default via {site.gateway} dev eth0 metric 500 mtu lock 1300",
        f"route add default via {site.gateway} dev eth0 table 100",
        "-6 route add 2001:db8:5::/48 dev eth0 metric 300",
        "-6 route add default via fe80::1 dev eth0 metric 1024",
        "neigh add 198.51.100.50 lladdr 02:00:00:00:00:50 dev eth0 nud permanent",
        "-6 neigh add fe80::1 lladdr 02:00:00:00:00:51 dev eth0 nud permanent",
    ]
    for line in words:
        layouts.ip(*line.split(), namespace=pod)
    layouts.ip("link", "add", "net1", "type", "veth", "peer", "name", "net1peer", namespace=pod)
    layouts.settle(pod)


async def test_undo_restores_everything(site: Site, dataplane: str) -> None:
    enrich(site)
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane)
        taps = await network.apply(plan)
        assert layouts.dump(site.pod) != before
        await taken_back(network, plan, taps)
        assert layouts.dump(site.pod) == before
        await taken_back(network, plan, [])
        assert layouts.dump(site.pod) == before, "undoing twice must change nothing"
        # What was undone can be plumbed again, to the same plan.
        again = await network.plan(seed=SEED, dataplane=dataplane)
        assert [step.do.describe() for step in again.steps] == [step.do.describe() for step in plan.steps]


async def test_undo_without_ipv6(site: Site) -> None:
    layouts.inside(site.pod, "sysctl", "-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1")
    before = layouts.dump(site.pod)
    async with plumbed(site) as (_, plan, _taps):
        assert not any("addr_gen_mode" in step.do.describe() for step in plan.steps)
    assert layouts.dump(site.pod) == before


async def test_plan_touches_nothing(site: Site) -> None:
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        first, second = await network.plan(seed=SEED), await network.plan(seed=SEED)
        assert first == second
    assert layouts.dump(site.pod) == before


def failing(operation: Operation) -> Operation:
    """One of the same sort that the kernel refuses."""
    if isinstance(operation, LocalOperation):
        return SetSysctl(key="net/no/such/setting", value="1")
    return SetMac(index=4242, link="nowhere", mac="02:00:00:00:00:01")


async def test_failure_at_any_operation_leaves_no_trace(site: Site, dataplane: str) -> None:
    enrich(site)
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane)
        for position, step in enumerate(plan.steps):
            steps = list(plan.steps)
            steps[position] = msgspec.structs.replace(step, do=failing(step.do))
            with pytest.raises(NetworkFault) as caught:
                await network.apply(msgspec.structs.replace(plan, steps=tuple(steps)))
            assert isinstance(caught.value.__cause__, OSError)
            assert not getattr(caught.value, "__notes__", ()), "rolling back must not fail"
            await network.settled()
            assert layouts.dump(site.pod) == before, step.do.describe()


async def test_stopped_at_any_operation_is_undone_from_the_journal(site: Site, dataplane: str) -> None:
    """A daemon killed in the midst of applying: another one has only the plan. It undoes, and can begin again."""
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane)
        journalled = msgspec.json.encode(plan)
        for length in range(len(plan.steps) + 1):
            taps = await network.apply(msgspec.structs.replace(plan, steps=plan.steps[:length]))
            await undo_at(site.path, msgspec.json.decode(journalled, type=Plan))
            await asyncio.gather(*(close_tap(tap) for tap in taps))
            await network.settled()
            assert layouts.dump(site.pod) == before, f"after {length} steps"
        again = await network.plan(seed=SEED, dataplane=dataplane)
        await taken_back(network, again, await network.apply(again))


async def test_cancelled_at_any_moment_leaves_no_trace(site: Site, dataplane: str) -> None:
    before = layouts.dump(site.pod)
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed=SEED, dataplane=dataplane)
        for delay in (0, 0.0002, 0.0005, 0.001, 0.002, 0.003):
            task = asyncio.create_task(network.apply(plan))
            await asyncio.sleep(delay)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
                await network.settled()
            else:
                await taken_back(network, plan, task.result())
            assert layouts.dump(site.pod) == before, f"after {delay} s"


async def test_a_kernel_that_takes_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked down, or built without: the error says what is missing, and nothing is left."""

    def refused(code: bytes, name: str) -> int:
        raise PermissionError(errno.EPERM, "bpf: Operation not permitted")

    monkeypatch.setattr("shim.network.kernel.bpf.load_classifier", refused)
    with layouts.routed() as site:
        before = layouts.dump(site.pod)
        async with await PodNetwork.open(site.path) as network:
            with pytest.raises(NetworkFault, match=r"does not take the program.*Operation not permitted.*CAP_BPF"):
                await network.apply(await network.plan(seed=SEED))
            await network.settled()
        assert layouts.dump(site.pod) == before


async def test_both_errors_are_kept_when_rolling_back_fails() -> None:
    with layouts.bridged() as site:
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED, dataplane="bridge")
            steps = list(plan.steps)
            bad = SetMac(index=2, link="eth0", mac="01:00:00:00:00:01")  # multicast: EADDRNOTAVAIL
            move = next(i for i, step in enumerate(steps) if isinstance(step.do, SetMac))
            steps[move] = msgspec.structs.replace(steps[move], undo=(bad,))
            steps[-1] = msgspec.structs.replace(steps[-1], do=failing(steps[-1].do))
            with pytest.raises(NetworkFault, match="set nowhere to MAC") as caught:
                await network.apply(msgspec.structs.replace(plan, steps=tuple(steps)))
            assert "could not be put back: set eth0 to MAC 01:00" in caught.value.__notes__[0]
            await network.undo(plan)


async def test_namespace_deleted_meanwhile() -> None:
    with layouts.bridged() as site:
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED)
            taps = await network.apply(plan)
            layouts.ip("link", "del", "vethpod", namespace=site.node)
            layouts.ip("netns", "del", site.pod)
            await taken_back(network, plan, taps)
        await undo_at(site.path, plan)


async def test_namespaces_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NamespaceGone, match="no such network namespace"):
        await PodNetwork.open(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(NamespaceGone, match="not a network namespace"):
        await PodNetwork.open(tmp_path / "file")
    with pytest.raises(NamespaceGone, match="not a network namespace"):
        await PodNetwork.open(Path("/proc/self/ns/uts"))
    with pytest.raises(NetworkFault, match="host's own"):
        await PodNetwork.open(Path("/proc/self/ns/net"))


async def test_second_unikernel_is_refused(site: Site, dataplane: str) -> None:
    async with plumbed(site, dataplane=dataplane) as (network, _, _taps):
        with pytest.raises(NetworkFault, match=f"already plumbed for sandbox {SEED}"):
            await network.plan(seed="another")


async def test_foreign_tap_in_the_way_is_left_alone() -> None:
    """One that appears after the layout was read: its name is taken, so applying fails, and it stays."""
    with layouts.bridged() as site:
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED)
            layouts.ip("tuntap", "add", "tap0", "mode", "tap", namespace=site.pod)
            before = layouts.dump(site.pod)
            with pytest.raises(NetworkFault, match="create tap tap0"):
                await network.apply(plan)
            await network.settled()
            assert layouts.dump(site.pod) == before
            assert [tap.link for tap in (await network.plan(seed=SEED)).taps] == ["tap1"]


async def test_no_interface_at_all() -> None:
    """Host network, or `ctr` without CNI: there is nothing to plumb, and nothing wrong."""
    with layouts.namespaces("bare") as (name,):
        async with await PodNetwork.open(Path("/run/netns") / name) as network:
            plan = await network.plan(seed=SEED)
            assert plan.steps == () and plan.guest == ()
            assert await network.apply(plan) == []
            with pytest.raises(NetworkFault, match=r"no eth0, only lo.*io\.unikernel\.network=none"):
                await network.plan(seed=SEED, interfaces=("eth0",))


@pytest.mark.parametrize("dataplane", ["bridge", "macvtap"])
async def test_macvlan_is_refused_what_cannot_work(dataplane: str) -> None:
    with layouts.namespaces("bare") as (name,):
        layouts.ip("link", "add", "parent", "type", "veth", "peer", "name", "other", namespace=name)
        layouts.ip("link", "add", "eth0", "link", "parent", "type", "macvlan", "mode", "bridge", namespace=name)
        layouts.ip("link", "set", "eth0", "up", namespace=name)
        async with await PodNetwork.open(Path("/run/netns") / name) as network:
            with pytest.raises(NetworkFault, match=rf"eth0 is macvlan, with which the dataplane {dataplane}.*mirror"):
                await network.plan(seed=SEED, interfaces=("eth0",), dataplane=dataplane)
            chosen = await network.plan(seed=SEED, interfaces=("eth0",))
            assert [nic.dataplane for nic in chosen.nics] == ["mirror"]


async def test_silent_next_hop_is_named() -> None:
    with layouts.routed() as site:
        layouts.inside(site.node, "sysctl", "-q", "-w", "net.ipv4.conf.calipod.proxy_arp=0")
        before = layouts.dump(site.pod)
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED)
            with pytest.raises(NetworkFault, match=r"next hop 169\.254\.1\.1 did not answer ARP"):
                await network.apply(plan)
        assert layouts.dump(site.pod) == before


async def test_persistent_tap_for_a_monitor_that_attaches_by_name() -> None:
    with layouts.bridged() as site:
        before = layouts.dump(site.pod)
        options = TapOptions(persistent=True, owner=65534, group=65534, vnet_hdr=True)
        async with plumbed(site, tap=options, dataplane="bridge") as (_, _plan, taps):
            assert taps == []
            shown = layouts.ip("-d", "link", "show", "tap0", namespace=site.pod)
            assert "persist on" in shown and "vnet_hdr on" in shown and "user nobody" in shown
        assert layouts.dump(site.pod) == before


async def test_a_tap_that_is_opened_again_by_whoever_sends_it_to_a_monitor(dataplane: str) -> None:
    with layouts.bridged() as site:
        options = TapOptions(persistent=True, vnet_hdr=True)
        async with plumbed(site, tap=options, dataplane=dataplane) as (_, plan, taps):
            while taps:  # a macvtap's device is opened when it is made
                os.close(taps.pop())
            name = plan.nics[0].tap
            opened = await open_tap_at(site.path, plan, name)
            with guest_double([opened], plan.guest, vnet_hdr=True) as guest:
                assert await pings(guest.name, site.router)
            if dataplane != "macvtap":  # whose device has room for more
                with pytest.raises(NetworkFault, match="cannot be opened: Device or resource busy"):
                    await open_tap_at(site.path, plan, name)
            os.close(opened)
            layouts.ip("link", "delete", name, namespace=site.pod)
            with pytest.raises(NetworkFault, match=f"{name}: the guest's tap cannot be opened"):
                await open_tap_at(site.path, plan, name)


async def test_mtu_is_the_smaller_of_link_and_route() -> None:
    with layouts.bridged(mtu=1450) as site:
        layouts.ip("route", "replace", "default", "via", site.gateway, "mtu", "1400", namespace=site.pod)
        async with plumbed(site, dataplane="bridge") as (_, plan, taps), guest_behind(taps[0], plan.guest[0]) as guest:
            assert plan.guest[0].mtu == 1400
            for device in ("tap0", "br0"):
                assert "mtu 1400" in layouts.ip("link", "show", device, namespace=site.pod)
            assert await pings(guest, site.router, size=1372)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_guest_that_believes_in_1500_bytes_on_a_wire_of_1400(layout: str, dataplane: str) -> None:
    """Its segments are clamped, its large answers cut up, and what it forbids to cut it hears of."""
    make: Callable[..., AbstractContextManager[Site]] = LAYOUTS[layout]
    with make(mtu=1400) as site:
        async with plumbed(site, dataplane=dataplane) as (_, plan, taps):
            assert plan.guest[0].mtu == 1400
            with guest_double(taps, plan.guest, believes_in_1500=True) as guest:
                large = ("ping", "-n", "-q", "-i", "0.05", "-c", "2", "-W", "1")
                for size in ("1372", "1400", "1472", "1473", "4000"):
                    for source, target in ((site.peer, site.address), (guest.name, site.peer_address)):
                        argv = (*large, "-M", "dont", "-s", size, target)
                        done = await asyncio.to_thread(layouts.inside, source, *argv)
                        assert done.returncode == 0, (size, source, done.stdout)
                # What it hears comes at once, and an answer never.
                forbidden = (*large, "-W", "0.2", "-M", "do", "-s", "1450", site.peer_address)
                done = await asyncio.to_thread(layouts.inside, guest.name, *forbidden)
                assert "+1 errors" in done.stdout, "it hears of it once, and then knows"
                await echoed(guest.name, site.peer, site.address)
                await echoed(site.peer, guest.name, site.peer_address)
                assert guest.largest_sent <= 1514


@contextmanager
def crowd(count: int) -> Iterator[list[Path]]:
    """So many pods of one node, made as fast as ip(8) makes them."""
    with layouts.namespaces("node", *(f"pod{number}" for number in range(count)), area="crowd") as (node, *pods):
        layouts.ip("link", "add", "cni0", "type", "bridge", namespace=node)
        layouts.ip("link", "set", "cni0", "up", namespace=node)
        for number, pod in enumerate(pods):
            outside = f"veth{number}"
            layouts.ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", pod, namespace=node)
            layouts.ip("link", "set", outside, "master", "cni0", "up", namespace=node)
            layouts.ip("link", "set", "eth0", "addrgenmode", "none", "up", namespace=pod)
            layouts.ip("addr", "add", f"10.88.{number // 250}.{number % 250 + 2}/16", "dev", "eth0", namespace=pod)
            layouts.ip("route", "add", "default", "via", "10.88.255.1", namespace=pod)
        yield [Path("/run/netns") / pod for pod in pods]


def known(layout: Layout) -> tuple[object, ...]:
    """What must come back of a layout; the kernel's encodings hold when each thing was made."""
    return layout.links, [str(each) for each in layout.addresses], [str(each) for each in layout.routes], layout.sysctls


async def test_a_hundred_at_once(dataplane: str) -> None:
    with crowd(100) as paths:

        async def round_trip(path: Path) -> float:
            async with await PodNetwork.open(path) as network:
                before = known(await network.layout())
                plan = await network.plan(seed=path.name, dataplane=dataplane)
                start = time.perf_counter()
                taps = await network.apply(plan)
                took = time.perf_counter() - start
                await taken_back(network, plan, taps)
                assert known(await network.layout()) == before
                return took

        start = time.perf_counter()
        took = sorted(await asyncio.gather(*(round_trip(path) for path in paths)))
        print(f"100 pods in {time.perf_counter() - start:.3f} s; apply {took[50] * 1e3:.1f} ms median")


def test_on_uvloop_in_few_round_trips(site: Site, dataplane: str) -> None:
    async def run() -> tuple[int, float]:
        async with await PodNetwork.open(site.path) as network:
            plan = await network.plan(seed=SEED, dataplane=dataplane)
            taps = await network.apply(plan)
            await taken_back(network, plan, taps)
            # Once more, so that the next hop is known and the round trips are applying's alone.
            plan = msgspec.structs.replace(await network.plan(seed=SEED, dataplane=dataplane))
            plan = plan.resolved({(hop.index, hop.address): "02:00:00:00:00:99" for hop in plan.resolve})
            netlink = network._namespace.netlink
            before, start = netlink.round_trips, time.perf_counter()
            taps = await network.apply(plan)
            figures = netlink.round_trips - before, time.perf_counter() - start
            await taken_back(network, plan, taps)
            return figures

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        trips, took = runner.run(run())
    print(f"applied in {trips} round trips, {took * 1e3:.2f} ms")
    assert trips <= 3
