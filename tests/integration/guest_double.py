"""A guest double: a second namespace with a real kernel stack behind the taps that the shim hands over.

It is a monitor and its guest in one: frames are relayed between each tap's descriptor and a tap of the namespace's own,
by a thread, so a test may block. The guest knows what `GuestInterface` says and nothing else.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from ipaddress import IPv4Interface

from shim.network.kernel.tap import create_tap
from shim.network.view import GuestInterface
from tests.integration import layouts

_TUNSETIFF = 0x400454CA  # linux/if_tun.h, as all that follow
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
#: TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN: checksums left undone and segments of 64 KiB may cross.
_OFFLOADS = 0x0F
#: A frame of the largest segment there is, and a struct virtio_net_hdr (linux/virtio_net.h) in front of it.
_LARGEST = 10 + 14 + (1 << 16)
#: The MTU of a stack that does not ask for it.
_ETHERNET = 1500
_INNER_INDEX = 77


class GuestDouble:
    """The guest: its namespace's name, and the largest frames in bytes that it sent and got, without headers of the
    tap's."""

    def __init__(self, name: str, vnet_hdr: bool) -> None:
        self.name = name
        self.largest_sent = self.largest_received = 0
        self._header = 10 if vnet_hdr else 0
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._pairs: dict[int, tuple[int, bool]] = {}
        self._thread = threading.Thread(target=self._relay, name=f"relay {name}", daemon=True)

    def join(self, outer: int, inner: int) -> None:
        """Relay between the pod's tap and the guest's; before `start`."""
        self._pairs |= {outer: (inner, False), inner: (outer, True)}

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def stop(self) -> None:
        """End relaying; the descriptors stay open."""
        os.eventfd_write(self._stop, 1)
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._stop)

    def _relay(self) -> None:
        with select.epoll() as poll:
            poll.register(self._stop, select.EPOLLIN)
            for descriptor in self._pairs:
                poll.register(descriptor, select.EPOLLIN)
            while True:
                for source, events in poll.poll():
                    if source == self._stop:
                        return
                    if not self._forward(source) or not events & select.EPOLLIN:
                        poll.unregister(source)

    def _forward(self, source: int) -> bool:
        """Whether the source is still there."""
        target, sending = self._pairs[source]
        try:
            while True:
                frame = os.read(source, _LARGEST)
                size = len(frame) - self._header
                if sending:
                    self.largest_sent = max(self.largest_sent, size)
                else:
                    self.largest_received = max(self.largest_received, size)
                with suppress(OSError):  # what a device refuses, a wire would have lost
                    os.write(target, frame)
        except BlockingIOError:
            return True
        except OSError:
            return False


@contextmanager
def guest_double(
    taps: Sequence[int],
    told: Sequence[GuestInterface],
    *,
    vnet_hdr: bool = False,
    believes_in_1500: bool = False,
) -> Iterator[GuestDouble]:
    """A guest with a NIC for each tap.

    `vnet_hdr`: the taps carry virtio-net headers, and offloads cross them. `believes_in_1500`: a stack that does not
    know of MTUs. With one NIC everything goes to its gateway, also what the gateway does not lead to, as in a stack
    that knows nothing but a gateway. With several, packets from one's address leave by that one, as in guests that have
    a stack for each. Raises AssertionError where duplicate address detection finds somebody else.
    """
    with layouts.namespaces("guest", area="double") as (name,), ExitStack() as stack:
        guest = GuestDouble(name, vnet_hdr)
        for number, (outer, nic) in enumerate(zip(taps, told, strict=True)):
            inner = _inner_tap(name, nic.name, _INNER_INDEX + number, vnet_hdr)
            stack.callback(os.close, inner)
            if vnet_hdr:
                for descriptor in (outer, inner):
                    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _OFFLOADS)
            guest.join(outer, inner)
        stack.callback(guest.stop)
        guest.start()
        for number, nic in enumerate(told):
            layouts.hasten(name, nic.name)
            layouts.sysctl(name, f"net.ipv6.conf.{nic.name}.accept_ra=0")
            mtu = _ETHERNET if believes_in_1500 else nic.mtu
            layouts.configure(name, "\n".join(_lines(nic, number, mtu, alone=len(told) == 1)))
            for address in (nic.address, nic.address6) if number else ():
                if address is not None:
                    words = ("rule", "add", "from", str(address.ip), "lookup", str(100 + number))
                    layouts.ip(f"-{address.version}", *words, namespace=name)
        layouts.settle(name)
        assert "dadfailed" not in layouts.ip("-6", "addr", namespace=name), "another has the guest's IPv6 address"
        yield guest


def _inner_tap(namespace: str, name: str, index: int, vnet_hdr: bool) -> int:
    return layouts.within(namespace, lambda: create_tap(name, index, vnet_hdr=vnet_hdr))


def _lines(nic: GuestInterface, number: int, mtu: int, *, alone: bool) -> Iterator[str]:
    """What a guest's start-up code would do, in words for ip(8)."""
    yield f"link set {nic.name} address {nic.mac} mtu {mtu}"
    for address in (nic.address, nic.address6):
        if address is not None:
            yield f"addr add {address} dev {nic.name}"
    yield f"link set {nic.name} up"
    for address, gateway in ((nic.address, nic.gateway), (nic.address6, nic.gateway6)):
        if address is None or gateway is None:
            continue
        everywhere = "0.0.0.0/0" if isinstance(address, IPv4Interface) else "::/0"
        networks = [str(network) for network in nic.routes if network.version == address.version and not alone]
        for network in networks or [everywhere]:
            yield f"route add {network} via {gateway} dev {nic.name} metric {100 + number}"
        if number:
            yield f"route add {everywhere} via {gateway} dev {nic.name} table {100 + number}"


@asynccontextmanager
async def guest_behind(
    tap: int, told: GuestInterface, *, vnet_hdr: bool = False, believes_in_1500: bool = False
) -> AsyncIterator[str]:
    """A guest with one NIC; gives its namespace's name."""
    with guest_double([tap], [told], vnet_hdr=vnet_hdr, believes_in_1500=believes_in_1500) as guest:
        await asyncio.sleep(0)
        yield guest.name


def attach_by_name(namespace: str, tap: str, *, vnet_hdr: bool = False) -> int:
    """Take a persistent tap as a monitor does that is told its name: a descriptor that does not block, the caller's.
    Raises OSError."""

    def attach() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("=16sH22x", tap.encode(), flags))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    return layouts.within(namespace, attach)
