"""One gateway of several, and the name servers of one version of IP."""

from __future__ import annotations

import pytest

from shim.errors import InvalidRequest
from shim.guests.base import Dns
from shim.guests.network import name_servers, way_out
from shim.network.view import GuestInterface
from tests.unit.guests.interfaces import ETH0, NET1, NET1_OUT, NET1_ROUTED, NO_ADDRESS, NO_GATEWAY


@pytest.mark.parametrize(
    ("interfaces", "position"),
    [
        ((), None),
        ((NO_ADDRESS,), None),
        ((NO_GATEWAY, NET1), None),
        ((ETH0, NET1), 0),
        ((NO_GATEWAY, NET1_OUT), 1),
        ((ETH0, NET1_OUT), 0),
        ((NET1_ROUTED,), 0),
        ((NO_GATEWAY, NET1_ROUTED), 1),
    ],
)
def test_the_way_out(interfaces: tuple[GuestInterface, ...], position: int | None) -> None:
    assert way_out(interfaces) == position


@pytest.mark.parametrize("interfaces", [(ETH0, NET1_ROUTED), (NET1_ROUTED, ETH0)])
def test_a_network_behind_another_gateway_is_refused(interfaces: tuple[GuestInterface, ...]) -> None:
    with pytest.raises(InvalidRequest, match=r"172\.16\.0\.0/12 is behind another, 192\.168\.7\.1") as caught:
        way_out(interfaces)
    assert caught.value.subject == "net1"


def test_name_servers() -> None:
    dns = Dns(servers=("10.96.0.10", "fd00::a", "1.1.1.1"))
    assert name_servers(dns, 4) == ("10.96.0.10", "1.1.1.1")
    assert name_servers(dns, 6) == ("fd00::a",)
    with pytest.raises(InvalidRequest, match=r"'ns\.example' is no IP address"):
        name_servers(Dns(servers=("ns.example",)), 4)
