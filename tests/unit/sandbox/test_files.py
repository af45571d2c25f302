"""What the containers of a pod share as files."""

from __future__ import annotations

from pathlib import Path

from shim.guests.base import Dns
from shim.sandbox.files import make_names, parse_resolv_conf, resolv_conf
from shim.sandbox.record import Pod


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


def test_what_containers_have_mounted_stays_as_it_is(tmp_path: Path) -> None:
    pod = Pod(hostname="web-0", dns=Dns(servers=("192.0.2.53",)))
    found = make_names(tmp_path, pod)
    names = Path(found["/etc/resolv.conf"])
    assert names.read_text() == "nameserver 192.0.2.53\n" and names.stat().st_mode & 0o777 == 0o644
    names.write_text("changed by a sidecar")
    inode = names.stat().st_ino
    assert make_names(tmp_path, pod) == found
    assert (names.read_text(), names.stat().st_ino) == ("changed by a sidecar", inode)
