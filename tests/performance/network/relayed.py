"""A guest whose frames are carried by processes of their own, so that a relay costs as little as Python can make it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shim.network.kernel.tap import create_tap
from tests.integration import layouts

_RELAY = Path(__file__).with_name("relay.py")
_TUNSETOFFLOAD = 0x400454D0  # linux/if_tun.h
#: TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN: checksums left undone and segments of 64 KiB may cross.
_OFFLOADS = 0x0F
_INDEX = 77


@contextmanager
def guest_relayed(outer: int, mac: str, mtu: int, lines: Sequence[str], *, vnet_hdr: bool) -> Iterator[str]:
    """A namespace with a tap `eth0` behind the tap `outer`; gives its name. `lines` for ip(8) configure it."""
    with layouts.namespaces("guest", area="bench") as (name,), ExitStack() as stack:
        inner = tap_in(name, "eth0", vnet_hdr=vnet_hdr)
        stack.callback(os.close, inner)
        if vnet_hdr:
            offload(outer)
        layouts.sysctl(name, "net.ipv6.conf.eth0.disable_ipv6=1")
        layouts.configure(name, "\n".join((f"link set eth0 address {mac} mtu {mtu}", *lines)))
        stack.enter_context(_relays(outer, inner))
        yield name


def tap_in(namespace: str, name: str, *, vnet_hdr: bool) -> int:
    """A tap in a namespace; its descriptor blocks, and is the caller's."""
    made = layouts.within(namespace, lambda: create_tap(name, _INDEX, vnet_hdr=vnet_hdr))
    os.set_blocking(made, True)
    if vnet_hdr:
        offload(made)
    return made


def offload(tap: int) -> None:
    """Let large segments cross a tap with virtio-net headers."""
    fcntl.ioctl(tap, _TUNSETOFFLOAD, _OFFLOADS)


@contextmanager
def _relays(one: int, other: int) -> Iterator[None]:
    for descriptor in (one, other):
        os.set_blocking(descriptor, True)
    with ExitStack() as stack:
        for source, target in ((one, other), (other, one)):
            stack.enter_context(running(_RELAY, str(source), str(target), descriptors=(source, target)))
        yield


@contextmanager
def running(
    program: Path, *arguments: str, namespace: str = "", descriptors: Sequence[int] = (), ready: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """One of this directory's programs, killed afterwards. `ready`: wait until it says so."""
    argv = [sys.executable, "-I", "-S", str(program), *arguments]
    if namespace:
        argv = ["ip", "netns", "exec", namespace, *argv]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, pass_fds=descriptors) as process:
        try:
            if ready:
                assert process.stdout is not None
                process.stdout.readline()
            yield process
        finally:
            process.kill()
