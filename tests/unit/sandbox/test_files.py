"""What the containers of a pod share as files."""

from __future__ import annotations

from shim.guests.base import Dns
from shim.sandbox.files import parse_resolv_conf, resolv_conf


def test_resolv_conf_says_what_the_pod_says() -> None:
    dns = Dns(servers=("192.0.2.53", "2001:db8::53"), searches=("a.example", "b.example"), options=("ndots:5", "edns0"))
    assert resolv_conf(dns).splitlines() == [
        "search a.example b.example",
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
        "options ndots:5 edns0",
    ]


def test_resolv_conf_is_read_as_it_is_written() -> None:
    dns = Dns(servers=("192.0.2.53", "2001:db8::53"), searches=("a.example", "b.example"), options=("ndots:5", "edns0"))
    assert parse_resolv_conf(resolv_conf(dns)) == dns


def test_of_search_lines_the_last_one_counts() -> None:
    text = "# a\n; b\n\nsearch a b\nnameserver\nnameserver 192.0.2.1\ndomain c\noptions x\noptions y\nsortlist z"
    assert parse_resolv_conf(text) == Dns(servers=("192.0.2.1",), searches=("c",), options=("x", "y"))


def test_a_pod_that_is_to_find_no_names_finds_none() -> None:
    assert resolv_conf(Dns()) == ""
