"""What a guest's packets cost in each dataplane, beside a bare veth between the same namespaces in the same run.

The guest is a namespace behind the tap that the shim hands over. Its frames are carried by a relay, which is no part of
any dataplane and costs more than all of them: so the same relay between two taps with nothing else is measured, too.
`test_frames_alone` does without it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from shim.bench.figures import Figure
from shim.network.addressing.interfaces import DATAPLANES
from shim.network.dataplanes.wiring import TapOptions
from shim.network.kernel.tap import close_tap
from shim.network.plan import Plan
from shim.network.pod import PodNetwork
from tests.integration import layouts
from tests.integration.layouts import Site
from tests.performance.conftest import Measured
from tests.performance.network import prober
from tests.performance.network.relayed import guest_relayed, running, tap_in

pytestmark = pytest.mark.timeout(900)

_HERE = Path(__file__).parent
_LAYOUTS: dict[str, Callable[[], AbstractContextManager[Site]]] = {"subnet": layouts.bridged, "/32": layouts.routed}
_MORE = pytest.mark.figure("dataplanes-more", on_request=True)
_GUESTS = pytest.mark.parametrize(
    ("layout", "vnet_hdr"),
    [
        pytest.param("subnet", True, marks=pytest.mark.figure("dataplanes")),
        pytest.param("/32", True, marks=_MORE),
        pytest.param("subnet", False, marks=_MORE),
    ],
)
_ROUNDS = 4
_ROUND_TRIP_ROUNDS = 10
_FRAME_ROUNDS = 5
#: Of one measurement, in seconds; iperf3 takes whole ones only.
_SECONDS = 1
_REQUESTS = 1500
#: The smallest payload that iperf3 sends by UDP, in bytes: its sequence number and time have to fit.
_SMALL = 16
_IPERF_PORT = 5201
_END, _GUEST = "198.18.0.1", "198.18.0.2"  # RFC 2544: for measurements
_END_MAC, _GUEST_MAC = "02:00:5e:10:00:20", "02:00:5e:10:00:21"
#: linux/if_packet.h: straight to the driver.
_PACKET_QDISC_BYPASS = 20
_SOL_PACKET = 263
#: Of pouring frames in, in seconds.
_POUR = 0.4
_BARE, _RELAY, _TAP = "bare veth", "relay alone", "a tap alone"


@dataclass(frozen=True)
class Pair:
    """Who speaks: `guest` is a namespace's name, and `address` answers from there."""

    guest: str
    address: str


Contenders = dict[str, Callable[[], AbstractAsyncContextManager[Pair]]]


@asynccontextmanager
async def _plumbed(site: Site, dataplane: str, *, vnet_hdr: bool = False) -> AsyncIterator[tuple[Plan, int]]:
    """A pod with its plan and its tap."""
    async with await PodNetwork.open(site.path) as network:
        plan = await network.plan(seed="measured", dataplane=dataplane, tap=TapOptions(vnet_hdr=vnet_hdr))
        (tap,) = await network.apply(plan)
        try:
            yield plan, tap
        finally:
            await network.undo(plan)
            await close_tap(tap)
            await network.settled()


@asynccontextmanager
async def _behind(site: Site, dataplane: str, vnet_hdr: bool) -> AsyncIterator[Pair]:
    async with _plumbed(site, dataplane, vnet_hdr=vnet_hdr) as (plan, tap):
        told = plan.guest[0]
        lines = (
            f"addr add {told.address} dev eth0",
            "link set eth0 up",
            f"route add default via {told.gateway} dev eth0",
        )
        with guest_relayed(tap, told.mac, told.mtu, lines, vnet_hdr=vnet_hdr) as guest:
            yield Pair(guest, site.router)


@asynccontextmanager
async def _bare(site: Site) -> AsyncIterator[Pair]:
    yield Pair(site.pod, site.router)


@asynccontextmanager
async def _relay_alone(end: str, vnet_hdr: bool) -> AsyncIterator[Pair]:
    """Two taps, and nothing but the relay between them."""
    tap = tap_in(end, "end", vnet_hdr=vnet_hdr)
    try:
        layouts.configure(end, f"link set end address {_END_MAC} up\naddr add {_END}/24 dev end")
        lines = (f"addr add {_GUEST}/24 dev eth0", "link set eth0 up")
        with guest_relayed(tap, _GUEST_MAC, 1500, lines, vnet_hdr=vnet_hdr) as guest:
            yield Pair(guest, _END)
    finally:
        await close_tap(tap)


@contextmanager
def _servers(namespace: str) -> Iterator[None]:
    """What answers in a namespace: iperf3 and the prober."""
    argv = ["ip", "netns", "exec", namespace, "iperf3", "-s", "-p", str(_IPERF_PORT)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with running(_HERE / "prober.py", "answer", namespace=namespace, ready=True):
                yield
        finally:
            process.kill()


@contextmanager
def _contenders(layout: str, vnet_hdr: bool) -> Iterator[Contenders]:
    with _LAYOUTS[layout]() as site, layouts.namespaces("end", area="bench") as (end,):
        made: Contenders = {_BARE: lambda: _bare(site), _RELAY: lambda: _relay_alone(end, vnet_hdr)}
        for dataplane in DATAPLANES:
            made[dataplane] = lambda dataplane=dataplane: _behind(site, dataplane, vnet_hdr)  # type: ignore[misc]
        with _servers(site.node), _servers(end):
            yield made


@_GUESTS
async def test_round_trips(layout: str, vnet_hdr: bool, measured: Measured) -> None:
    key, words = _named(layout, vnet_hdr)
    table = measured.figure(f"round-trip.{key}", f"A small request and its response, {words}", "us", peer=_BARE)
    with _contenders(layout, vnet_hdr) as contenders:
        for _ in range(_ROUND_TRIP_ROUNDS):
            for name, contender in contenders.items():
                async with contender() as pair:
                    table.add(name, *_round_trips(pair))


@_GUESTS
async def test_throughput(layout: str, vnet_hdr: bool, measured: Measured) -> None:
    key, words = _named(layout, vnet_hdr)
    ways = {"-R": "to", "": "from"}

    def figures(kind: str, title: str, unit: str) -> dict[str, Figure]:
        return {
            direction: measured.figure(
                f"{kind}.{way}.{key}", f"{title.format(way)}, {words}", unit, peer=_BARE, more_is_better=True
            )
            for direction, way in ways.items()
        }

    streams = figures("tcp", "TCP {} the guest", "Gbit/s")
    packets = figures("udp", f"UDP {{}} the guest, {_SMALL} bytes", "1000 packets/s")
    with _contenders(layout, vnet_hdr) as contenders:
        for _ in range(_ROUNDS):
            for name, contender in contenders.items():
                async with contender() as pair:
                    for direction, table in streams.items():
                        table.add(name, _stream(pair, direction))
                    for direction, table in packets.items():
                        table.add(name, _small_packets(pair, direction))


def _named(layout: str, vnet_hdr: bool) -> tuple[str, str]:
    """In a figure's key, and in its title."""
    return f"{layout}{'.vnet' if vnet_hdr else ''}", f"{layout}, {'with' if vnet_hdr else 'without'} vnet headers"


def _round_trips(pair: Pair) -> list[float]:
    argv = (sys.executable, "-I", "-S", prober.__file__, "ask", pair.address, str(_REQUESTS))
    done = layouts.inside(pair.guest, *argv)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def _stream(pair: Pair, direction: str) -> float:
    """Gbit/s received; `-R` is towards the guest."""
    return float(_iperf(pair, direction)["sum_received"]["bits_per_second"]) / 1e9


def _small_packets(pair: Pair, direction: str) -> float:
    """Thousands of packets received in a second."""
    found = _iperf(pair, "-u", "-b", "0", "-l", str(_SMALL), direction)["sum"]
    return float((found["packets"] - found["lost_packets"]) / found["seconds"] / 1000)


def _iperf(pair: Pair, *options: str) -> dict[str, dict[str, float]]:
    argv = ["iperf3", "-c", pair.address, "-p", str(_IPERF_PORT), "-t", str(_SECONDS), "-J"]
    argv += [option for option in options if option]
    for _ in range(3):
        done = layouts.inside(pair.guest, *argv)
        said = json.loads(done.stdout)
        if "error" not in said:
            found: dict[str, dict[str, float]] = said["end"]
            return found
        time.sleep(0.2)  # the server is not through with the one before
    raise AssertionError(said["error"])


@pytest.mark.figure("frames")
@pytest.mark.parametrize("layout", _LAYOUTS)
async def test_frames_alone(layout: str, measured: Measured) -> None:
    """Without a guest and without a relay: one process puts small frames in at one end, and they are counted at the
    other. The kernel does its work for a frame while it is put in, so that process's time on a CPU is the path's."""
    unit = "ns of CPU for each"
    there = measured.figure(f"frames.out.{layout}", f"Frames from the tap to the node, {layout}", unit, peer=_BARE)
    back = measured.figure(f"frames.in.{layout}", f"Frames from the node to the tap, {layout}", unit, peer=_BARE)
    came = measured.figure(f"frames.came.{layout}", f"Of these came, {layout}", "percent", more_is_better=True)
    with _LAYOUTS[layout]() as site, layouts.namespaces("end", area="bench") as (end,), ExitStack() as stack:
        tap = tap_in(end, "end", vnet_hdr=False)
        stack.callback(os.close, tap)
        layouts.sysctl(end, "net.ipv6.conf.end.disable_ipv6=1")
        layouts.configure(end, "link set end up")
        node = _End(site.node, site.wires[0].device, stack)
        pod, lone = _End(site.pod, "eth0", stack), _End(end, "end", stack)
        outward = _frame(node.mac, site.mac, site.address, site.router)
        inward = _frame(site.mac, node.mac, site.router, site.address)
        stack.enter_context(node.dropping())
        stack.enter_context(lone.dropping())
        for _ in range(_FRAME_ROUNDS):
            with pod.dropping():
                _count_at_device(_BARE, pod.socket, outward, node, there, came)
                _count_at_device(_BARE, node.socket, inward, pod, back, came)
            _count_at_device(_TAP, tap, outward, lone, there, came)
            _count_at_tap(_TAP, lone.socket, inward, tap, back, came)
            for dataplane in DATAPLANES:
                async with _plumbed(site, dataplane) as (plan, opened):
                    os.set_blocking(opened, True)
                    gateway = plan.nics[0].virtual_mac
                    frame = _frame(gateway, site.mac, site.address, site.router) if gateway else outward
                    _count_at_device(dataplane, opened, frame, node, there, came)
                    _count_at_tap(dataplane, node.socket, inward, opened, back, came)


class _End:
    """One end of a wire: a device in a namespace, and a packet socket that puts frames in there."""

    def __init__(self, namespace: str, device: str, stack: ExitStack) -> None:
        self._namespace, self._device = namespace, device
        self.mac: str = self._link()["address"]
        opened = layouts.within(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        stack.enter_context(opened)
        opened.bind((device, 0))
        opened.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self.socket = opened.fileno()

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """IPv4 packets that arrive are counted by the device and go no further."""
        hook = f"type filter hook ingress device {self._device} priority 0;"
        self._nft(f"add table netdev bench; add chain netdev bench arriving {{ {hook} }}")
        self._nft("add rule netdev bench arriving meta protocol ip drop")
        try:
            yield
        finally:
            self._nft("delete table netdev bench")

    def received(self) -> int:
        """Frames, so far."""
        return int(self._link()["stats64"]["rx"]["packets"])

    def _link(self) -> dict[str, Any]:
        (link,) = json.loads(layouts.ip("-j", "-s", "link", "show", self._device, namespace=self._namespace))
        found: dict[str, Any] = link
        return found

    def _nft(self, commands: str) -> None:
        done = layouts.inside(self._namespace, "nft", commands)
        assert done.returncode == 0, done.stderr


def _count_at_device(name: str, source: int, frame: bytes, target: _End, table: Figure, came: Figure) -> None:
    before = target.received()
    sent, nanoseconds = _pour(source, frame)
    table.add(name, nanoseconds)
    came.add(
        f"{name}: {'to the node' if 'tap to' in table.title else 'to the pod'}",
        (target.received() - before) / sent * 100,
    )


def _count_at_tap(name: str, source: int, frame: bytes, tap: int, table: Figure, came: Figure) -> None:
    with running(_HERE / "pourer.py", "drain", str(tap), descriptors=(tap,), ready=True) as drain:
        sent, nanoseconds = _pour(source, frame)
        time.sleep(0.05)
        drain.send_signal(signal.SIGTERM)
        drained, _ = drain.communicate()
    table.add(name, nanoseconds)
    came.add(f"{name}: to the tap", int(drained) / sent * 100)


def _pour(descriptor: int, frame: bytes) -> tuple[int, float]:
    """How many, and nanoseconds on a CPU for each."""
    argv = [sys.executable, "-I", "-S", str(_HERE / "pourer.py"), str(descriptor), str(_POUR)]
    done = subprocess.run(argv, input=frame, stdout=subprocess.PIPE, pass_fds=(descriptor,), check=True)
    sent, seconds = done.stdout.split()
    return int(sent), float(seconds) / int(sent) * 1e9


def _frame(target: str, source: str, own: str, other: str) -> bytes:
    """A UDP packet of no use (RFC 863) in the smallest frame there is."""
    data = struct.pack("!HHHH", 9, 9, 26, 0) + bytes(18)
    addresses = ip_address(own).packed + ip_address(other).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return bytes.fromhex((target + source).replace(":", "")) + b"\x08\x00" + header + data


def _checksum(header: bytes) -> int:
    """RFC 1071."""
    words = [int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2)]
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
