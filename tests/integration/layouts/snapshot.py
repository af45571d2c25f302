"""What stands in a namespace, so that before and after can be compared."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.layouts.namespaces import inside

#: Everything in one visit: a shell in the namespace costs less than a program for each question.
_QUESTIONS = {
    "links": "ip -j -d link",
    "addresses": "ip -j -d addr",
    "routes": "ip -j -d -4 route show table all",
    "routes6": "ip -j -d -6 route show table all",
    "neighbours": "ip -j neigh show nud permanent",
    "proxied": "ip -j neigh show proxy",
    "rules": "ip -j -4 rule",
    "rules6": "ip -j -6 rule",
    "ports": "bridge -j -d link",
    "forwarding": "bridge -j fdb show",
    "multicast": "ip -j maddr",
    "qdiscs": "tc -j qdisc show",
    # Only devices with one of these two have the hooks (tc(8)); to ask each device would take as long as the rest.
    "filters": "for device in $(tc qdisc show | sed -nE 's/^qdisc (clsact|ingress) .* dev ([^ ]+) .*/\\2/p');"
    " do for hook in ingress egress; do"
    " tc filter show dev $device $hook 2>/dev/null | sed \"s/^/$device $hook /\"; done; done",
    "settings": "grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/neigh"
    " /proc/sys/net/ipv6/neigh",
}  # fmt: skip
_SEPARATOR = "\x1e"
#: What moves by itself.
_RUNNING = ("valid_life_time", "preferred_life_time", "expires")
_LASTING = 0xFFFFFFFF
#: How often others want an interface to take frames that are not for it.
_IMPOSED = ("promiscuity", "allmulti")


def dump(namespace: str) -> dict[str, Any]:
    """Everything that undoing must bring back: links with their aliases and bridge ports, addresses, routes of both
    families and all tables, rules, permanent and proxied neighbours, multicast groups, queueing disciplines, filters,
    and all of IPv4's and IPv6's settings of every interface. Counters and ages are left out."""
    script = f"; printf '{_SEPARATOR}'; ".join(_QUESTIONS.values())
    done = inside(namespace, "sh", "-c", script)
    answers = dict(zip(_QUESTIONS, done.stdout.split(_SEPARATOR), strict=True))
    found: dict[str, Any] = {
        name: json.loads(said or "[]") if " -j" in _QUESTIONS[name] else sorted(said.splitlines())
        for name, said in answers.items()
    }
    for link in found["links"] + found["addresses"]:
        link.pop("stats64", None)
        for address in link.get("addr_info", ()):
            _still(address)
    for route in found["routes6"]:
        _still(route)
    # What has no order that means anything: filters of addresses; and routes to link-local addresses, which each
    # interface has, which the kernel makes as interfaces come up, and which packets choose among by their interface.
    found["routes6"] = sorted(found["routes6"], key=lambda route: (_local(route), str(route) if _local(route) else ""))
    for link in found["multicast"]:
        link["maddr"].sort(key=str)
    found["forwarding"].sort(key=str)
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is gone and what is new, in words; empty for equal dumps."""
    said = []
    for name in before:
        lost = [entry for entry in before[name] if entry not in after[name]]
        new = [entry for entry in after[name] if entry not in before[name]]
        said += [f"{name}: lost {entry}" for entry in lost] + [f"{name}: new {entry}" for entry in new]
        if not lost and not new and before[name] != after[name]:
            said.append(f"{name}: in another order")
    return said


def without(found: dict[str, Any], devices: set[str]) -> dict[str, Any]:
    """A dump as it would be without those devices, and without what goes with a device or comes by itself a moment
    later: promiscuity and filters of addresses where one sat on another; what duplicate address detection holds up."""
    kept = {name: [entry for entry in entries if not _of(entry, devices)] for name, entries in found.items()}
    for name in ("links", "addresses"):
        kept[name] = [_unhurried(link) for link in kept[name]]
    kept["routes6"] = [route for route in kept["routes6"] if not _local(route) and route.get("table") != "local"]
    return kept | {"multicast": [], "forwarding": []}


def devices(found: dict[str, Any]) -> set[str]:
    """The names of a dump's interfaces."""
    return {link["ifname"] for link in found["links"]}


def _still(entry: dict[str, Any]) -> None:
    for key in _RUNNING:
        if entry.get(key, _LASTING) < _LASTING:
            entry[key] = "running"


def _unhurried(link: dict[str, Any]) -> dict[str, Any]:
    addresses = [
        {key: value for key, value in address.items() if key != "tentative"}
        for address in link.get("addr_info", ())
        if not (address["family"] == "inet6" and address["scope"] == "link")
    ]
    return {key: value for key, value in link.items() if key not in _IMPOSED} | {"addr_info": addresses}


def _local(route: dict[str, Any]) -> bool:
    return str(route["dst"]).startswith(("fe80:", "ff00:", "multicast"))


def _of(entry: Any, devices: set[str]) -> bool:
    if isinstance(entry, str):
        return any(entry.startswith(f"{device} ") or f"/{device}/" in entry for device in devices)
    return any(entry.get(key) in devices for key in ("ifname", "dev"))
