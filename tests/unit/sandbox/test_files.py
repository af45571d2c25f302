"""What the containers of a pod share as files."""

from __future__ import annotations

from shim.sandbox.files import resolv_conf
from shim.sandbox.record import Dns


def test_resolv_conf_says_what_the_pod_says() -> None:
    dns = Dns(servers=("192.0.2.53", "2001:db8::53"), searches=("a.example", "b.example"), options=("ndots:5", "edns0"))
    assert resolv_conf(dns).splitlines() == [
        "search a.example b.example",
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
        "options ndots:5 edns0",
    ]


def test_a_pod_that_is_to_find_no_names_finds_none() -> None:
    assert resolv_conf(Dns()) == ""
