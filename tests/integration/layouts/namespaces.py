"""Named network namespaces, and programs in them."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Where ip-netns(8) keeps them.
NAMED = Path("/run/netns")
#: A duplicate address detection's wait for an answer, in milliseconds: a second by default (RFC 4861), which on a veth
#: is spent on nothing. Detection itself is done as ever.
_RETRANSMIT = 50
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def ip(*words: str, namespace: str = "") -> str:
    """Run ip(8); raises RuntimeError with what it said."""
    prefix = ["-n", namespace] if namespace else []
    return _run(["ip", *prefix, *words])


def configure(namespace: str, lines: str) -> None:
    """Run many lines of ip(8) in a namespace; raises RuntimeError with what it said about the first that failed."""
    _run(["ip", "-n", namespace, "-batch", "-"], lines)


def inside(namespace: str, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a program inside a namespace; its exit code is the caller's to judge."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *argv], capture_output=True, text=True, timeout=timeout, check=False
    )


def pings(namespace: str, address: str, *, count: int = 2, size: int = 56, wait: float = 1.0) -> bool:
    """Whether `address` answers a ping from the namespace."""
    argv = ("ping", "-n", "-q", "-i", "0.05", "-c", str(count), "-W", str(wait), "-s", str(size), "-M", "do", address)
    return inside(namespace, *argv).returncode == 0


def within(namespace: str, work: Callable[[], T]) -> T:
    """Do something in a namespace, in a thread that exists for nothing else: a socket stays in the namespace it was
    made in, whoever uses it. Raises what `work` raises, OSError where there is no such namespace."""
    outcome: Future[T] = Future()

    def visit() -> None:
        try:
            with (NAMED / namespace).open() as opened:
                if _libc.setns(opened.fileno(), _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns: {os.strerror(number)}")
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    return outcome.result()


@contextmanager
def namespaces(*roles: str, area: str = "net") -> Iterator[list[str]]:
    """Fresh named namespaces with loopback up; removed afterwards whatever happened."""
    stamp = f"{area}-{os.getpid()}-{next(_numbers)}"
    names = [f"{stamp}-{role}" for role in roles]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", namespace=name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def sysctl(namespace: str, *settings: str) -> None:
    """Set sysctls of the namespace, each as `key=value`. Raises AssertionError with what sysctl(8) said."""
    done = inside(namespace, "sysctl", "-q", "-w", *settings)
    assert done.returncode == 0, done.stderr


def hasten(namespace: str, device: str) -> None:
    """Let duplicate address detection on a device that is still down take a twentieth of the time."""
    sysctl(
        namespace,
        f"net.ipv6.conf.{device}.router_solicitation_delay=0",
        f"net.ipv6.neigh.{device}.retrans_time_ms={_RETRANSMIT}",
    )


def settle(namespace: str) -> None:
    """Wait until every link is up that is going up, and no IPv6 address is tentative: before that both move by
    themselves."""
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline and not _settled(namespace):
        time.sleep(0.01)


def _settled(namespace: str) -> bool:
    links: list[dict[str, Any]] = json.loads(ip("-j", "addr", namespace=namespace) or "[]")
    return all(
        not (link.get("operstate") == "DOWN" and "LOWER_UP" in link["flags"])
        and not any(address.get("tentative") for address in link["addr_info"])
        for link in links
    )


def _run(argv: list[str], given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}{given and f' in:{chr(10)}{given}'}")
    return done.stdout
