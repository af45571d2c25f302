"""Another network namespace, worked in from threads of this process.

setns(2) moves only the calling thread. Each visit therefore gets a thread of its own that ends with the visit: no
thread that ever entered a pod's namespace is used for anything else, so a return that fails cannot poison a pool.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shim import log
from shim.errors import InvalidRequest, NetworkFault
from shim.network.kernel import netlink
from shim.threads import in_new_thread

T = TypeVar("T")

#: Where ip-netns(8) keeps its named namespaces.
NAMED = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, ioctl_ns(2)
_OWN = (Path("/proc/self/ns/net"), Path("/proc/1/ns/net"))
_libc = ctypes.CDLL(None, use_errno=True)
_log = log.get(__name__)
#: What goes on in namespaces with nobody waiting for it, by device and inode. No loop's: one may end before it does.
_background: dict[tuple[int, int], set[concurrent.futures.Future[None]]] = {}
_background_lock = threading.Lock()
#: The kernel changes one network configuration at a time, whatever the namespace (rtnl_mutex), and a setting that is
#: written meanwhile is retried on the CPU until it can be (addrconf_disable_ipv6 in net/ipv6/addrconf.c, by
#: restart_syscall). So visits wait here, where that costs nothing; one may get ready while another is in the kernel.
_visiting = threading.BoundedSemaphore(2)
#: Removing a device holds that lock of the kernel's for milliseconds: what somebody waits for must find no queue of
#: removals before it.
_removing = threading.BoundedSemaphore(2)


class NamespaceGone(NetworkFault):
    """There is no network namespace at that path (any more)."""


def namespace_path(name: str) -> Path:
    """`NAME` as `ip netns` has it, or a path: whatever holds a slash is one. Raises InvalidRequest for no name."""
    if not name:
        raise InvalidRequest("no network namespace is named", remedy="give its name, or a path")
    return Path(name) if "/" in name else NAMED / name


class Namespace:
    """An open network namespace and a netlink socket in it. It keeps the namespace alive until it is closed."""

    def __init__(self, path: Path, descriptor: int, opened: netlink.Netlink) -> None:
        self.path = path
        self.netlink = opened
        self._descriptor = descriptor

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a new thread inside the namespace. If cancelled, waits for it to end first."""
        return await _visit(self._descriptor, work)

    def background(self, work: Callable[[], None]) -> None:
        """Run `work` in a new thread inside the namespace, which is held open for it; nobody waits. `settled` does."""
        held = os.dup(self._descriptor)
        key = _identity(held)
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        with _background_lock:
            _background.setdefault(key, set()).add(future)

        def visit() -> None:
            try:
                with _removing:
                    _enter(held)
                    work()
            except BaseException as error:
                _log.error("work in a namespace failed", namespace=os.fspath(self.path), error=str(error))
            finally:
                os.close(held)
                with _background_lock:
                    _background[key].discard(future)
                    if not _background[key]:
                        del _background[key]
                future.set_result(None)

        threading.Thread(target=visit, name="netns", daemon=True).start()

    async def settled(self) -> None:
        """Wait until nothing goes on in the background of this namespace."""
        while under_way := tuple(_background.get(_identity(self._descriptor), ())):
            await asyncio.wait([asyncio.wrap_future(future) for future in under_way])

    def close(self) -> None:
        """Let go of the namespace; harmless twice."""
        self.netlink.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def all_settled(timeout: float) -> None:
    """Wait `timeout` seconds at most until nothing goes on in the background of any namespace: it would end with us."""
    under_way = [future for futures in tuple(_background.values()) for future in tuple(futures)]
    if under_way:
        await asyncio.wait([asyncio.wrap_future(future) for future in under_way], timeout=timeout)


async def open_namespace(path: Path) -> Namespace:
    """Open the namespace at `path`. Cancelled, it leaves nothing open.

    Raises NamespaceGone if there is none, NetworkFault if it is the host's (plumbing that would cut the node off) or
    cannot be entered.
    """
    opening = asyncio.ensure_future(_opened(path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        raise


async def visit(path: Path, work: Callable[[], T]) -> T:
    """Run `work`, which raises no OSError, in a new thread inside the namespace at `path`.

    Raises as `open_namespace` and `work` do.
    """
    descriptor = await asyncio.to_thread(_open, path)
    try:
        return await _visit(descriptor, work)
    except OSError as error:
        raise _closed_to_us(path, error) from error
    finally:
        os.close(descriptor)


async def _opened(path: Path) -> Namespace:
    descriptor = await asyncio.to_thread(_open, path)
    try:
        opened = await _visit(descriptor, netlink.open_socket)
    except OSError as error:
        os.close(descriptor)
        raise _closed_to_us(path, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return Namespace(path, descriptor, netlink.Netlink(opened))


def _closed_to_us(path: Path, error: OSError) -> NetworkFault:
    return NetworkFault(
        f"the network namespace cannot be entered: {os.strerror(error.errno or 0)}",
        subject=os.fspath(path),
        remedy="the daemon needs CAP_SYS_ADMIN and CAP_NET_ADMIN",
    )


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NamespaceGone("there is no such network namespace", subject=os.fspath(path)) from error
    except OSError as error:
        raise NetworkFault(
            f"the network namespace cannot be opened: {os.strerror(error.errno or 0)}", subject=os.fspath(path)
        ) from error
    try:
        if _type_of(descriptor) != _CLONE_NEWNET:
            raise NamespaceGone("that file is not a network namespace", subject=os.fspath(path))
        if _is_own(descriptor):
            raise NetworkFault(
                "that is the host's own network namespace, which is never plumbed",
                subject=os.fspath(path),
                remedy="a pod on the host's network gets a unikernel with io.unikernel.network=none",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _type_of(descriptor: int) -> int:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return 0
        raise


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _is_own(descriptor: int) -> bool:
    mine = _identity(descriptor)
    for path in _OWN:
        try:
            other = path.stat()
        except OSError:  # /proc/1 may be hidden from us; then it is not ours to compare with
            continue
        if (other.st_dev, other.st_ino) == mine:
            return True
    return False


def _enter(descriptor: int) -> None:
    """setns(2) on the calling thread. Raises OSError."""
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


async def _visit(descriptor: int, work: Callable[[], T]) -> T:
    def visit() -> T:
        with _visiting:
            _enter(descriptor)
            return work()

    future = in_new_thread(visit, name="netns")
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
