"""Who answers, asked from the node of a pod: without a process of its own, so that asking costs next to nothing."""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address

from shim.network.checking.packets import Resolved, arp_request, parse
from tests.integration import layouts
from tests.integration.node import Node

_ETH_P_ARP = 0x0806  # linux/if_ether.h
_AGAIN = 0.001  # seconds until the question is put again
_PATIENCE = 30.0


class Asker:
    """A node's bridge, and what is asked there; the bridge must be there. Close it."""

    def __init__(self, node: Node, bridge: str = "cni0") -> None:
        self._node = node
        (link,) = node.ip("address", "show", "dev", bridge)
        self._mac = str(link["address"])
        self._address = IPv4Address(next(each["local"] for each in link["addr_info"] if each["family"] == "inet"))

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP))
            made.bind((bridge, _ETH_P_ARP))
            made.settimeout(_AGAIN)
            return made

        self._frames = layouts.within(node.netns, opened)

    def close(self) -> None:
        self._frames.close()

    def arp(self, address: str) -> str:
        """The MAC that answers for the address, as soon as one does. Raises AssertionError."""
        wanted = IPv4Address(address)
        request = arp_request(self._mac, self._address, wanted)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self._frames.send(request)
            try:
                found = parse(self._frames.recv(2048))
            except TimeoutError:
                continue
            if isinstance(found, Resolved) and found.address == wanted:
                return found.mac
        raise AssertionError(f"nobody answers for {address}")

    def tcp(self, address: str, port: int) -> None:
        """Return as soon as a server takes a connection. Raises AssertionError."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with layouts.within(self._node.netns, lambda: socket.socket(socket.AF_INET)) as connection:
                connection.settimeout(_PATIENCE)
                try:
                    connection.connect((address, port))
                except OSError:
                    time.sleep(_AGAIN)
                else:
                    return
        raise AssertionError(f"nobody answers at {address}:{port}")
