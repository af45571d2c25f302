"""Taps: /dev/net/tun (linux/if_tun.h, Documentation/networking/tuntap.rst), and the device of a macvtap."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
import struct

from shim.network.kernel import filesystem
from shim.threads import in_new_thread

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETGROUP = 0x400454CE
_TUNSETIFINDEX = 0x400454DA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("=16sH22x")

_closing: set[asyncio.Future[None]] = set()


def create_tap(
    name: str,
    index: int,
    *,
    vnet_hdr: bool = False,
    persistent: bool = False,
    owner: int | None = None,
    group: int | None = None,
) -> int:
    """Make a tap in the calling thread's network namespace, with that interface index, and return its descriptor.

    It does not block, and as that belongs to the open file, neither does it for the monitor that inherits it.
    A persistent one outlives its descriptor, so that a monitor running as `owner`:`group` can attach to it by name.
    Raises OSError, EBUSY if the name or index is taken.
    """
    descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFINDEX, struct.pack("=I", index))
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if vnet_hdr else 0)
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
        if persistent:
            if owner is not None:
                fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
            if group is not None:
                fcntl.ioctl(descriptor, _TUNSETGROUP, group)
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_tap(name: str, index: int, *, vnet_hdr: bool = False) -> int:
    """Take the only queue of a persistent tap in the calling thread's network namespace; the descriptor does not block.

    Raises OSError: ENODEV where there is no such tap, EBUSY where it is taken.
    """
    # The kernel would make one that is not there, and what else has its name is not ours.
    try:
        there = socket.if_nametoindex(name) == index
    except OSError:  # which says no more
        there = False
    if not there:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
    return _joined(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK), name, vnet_hdr)


def open_macvtap(name: str, *, vnet_hdr: bool = False) -> int:
    """Open the device of a macvtap in the calling thread's network namespace; it does not block, like a tap's.

    The device's number is known to the sysfs of the namespace that holds it and nobody else, and a node in /dev would
    be named by the interface's index, which other namespaces use too. So both file systems are private to this call.
    Raises OSError.
    """
    with filesystem.detached("sysfs") as sysfs:
        (device,) = (sysfs / "class/net" / name / "macvtap").iterdir()
        major, minor = map(int, (device / "dev").read_text().split(":"))
    with filesystem.detached("tmpfs") as nodes:
        os.mknod(nodes / name, 0o600 | stat.S_IFCHR, os.makedev(major, minor))
        descriptor = os.open(nodes / name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    return _joined(descriptor, name, vnet_hdr)


def _joined(descriptor: int, name: str, vnet_hdr: bool) -> int:
    """The descriptor, joined to the interface; it is closed where the kernel refuses that. Raises OSError."""
    try:
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def close_tap(descriptor: int) -> asyncio.Future[None]:
    """Close a descriptor in the background: the device goes with the last one, which takes the kernel 10-20 ms."""
    closing = in_new_thread(lambda: os.close(descriptor), name="tap")
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)
    return closing
