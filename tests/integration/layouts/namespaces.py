"""Named network namespaces, and programs in them."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_numbers = itertools.count()


def ip(*words: str, namespace: str = "") -> str:
    """Run ip(8); raises CalledProcessError with what it said."""
    prefix = ["-n", namespace] if namespace else []
    return _run("ip", *prefix, *words)


def inside(namespace: str, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a program inside a namespace; its exit code is the caller's to judge."""
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *argv], capture_output=True, text=True, timeout=timeout, check=False
    )


def pings(namespace: str, address: str, *, count: int = 2, size: int = 56, wait: float = 1.0) -> bool:
    """Whether `address` answers a ping from the namespace."""
    argv = ("ping", "-n", "-q", "-i", "0.05", "-c", str(count), "-W", str(wait), "-s", str(size), "-M", "do", address)
    return inside(namespace, *argv).returncode == 0


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


def settle(pod: str) -> None:
    """Wait until eth0's IPv6 address is no longer tentative: before that its flags move by themselves."""
    deadline = 60
    while deadline and ("tentative" in ip("-6", "addr", "show", "dev", "eth0", namespace=pod)):
        subprocess.run(["sleep", "0.1"], check=True)
        deadline -= 1


def sysctl(namespace: str, key: str, value: str) -> None:
    """Set a sysctl of the namespace."""
    done = inside(namespace, "sysctl", "-q", "-w", f"{key}={value}")
    assert done.returncode == 0, done.stderr


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
