"""A daemon's metrics, fetched as Prometheus fetches them."""

from __future__ import annotations

import socket

from tests.integration.daemon import Daemon


def page(daemon: Daemon) -> str:
    """The page."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.run_dir / "metrics.sock"))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert " 200 " in head.splitlines()[0], answer
    return body


def scraped(daemon: Daemon) -> dict[str, float]:
    """Every sample on it, by name and labels as they are written there."""
    lines = [line.rpartition(" ") for line in page(daemon).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def reachable(daemon: Daemon, name: str) -> dict[str, float]:
    """The gauge of a pod, by probe."""
    found = {}
    for labels, value in scraped(daemon).items():
        if labels.startswith("unikernel_shim_guest_reachable{") and f'pod="{name}"' in labels:
            assert 'interface="eth0"' in labels and 'family="ipv4"' in labels
            found[labels.partition('probe="')[2].partition('"')[0]] = value
    return found
