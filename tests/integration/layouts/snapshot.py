"""What stands in a namespace, so that before and after can be compared."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.layouts.namespaces import inside, ip


def dump(namespace: str) -> dict[str, Any]:
    """Everything that undoing must bring back: links, addresses, routes of both families and all tables, permanent
    neighbours, and IPv6's settings of eth0. Counters and ages are left out, as they move by themselves."""
    found: dict[str, Any] = {
        "links": _json(namespace, "-d", "link"),
        "addresses": _json(namespace, "-d", "addr"),
        "routes": _json(namespace, "-d", "-4", "route", "show", "table", "all"),
        "routes6": _json(namespace, "-d", "-6", "route", "show", "table", "all"),
        "neighbours": [entry for entry in _json(namespace, "neigh") if "PERMANENT" in entry.get("state", [])],
    }
    settings = inside(namespace, "sh", "-c", "cd /proc/sys/net/ipv6/conf/eth0 2>/dev/null && grep -s . *")
    found["settings"] = sorted(settings.stdout.splitlines())
    for link in found["links"] + found["addresses"]:
        # The queueing state and the bridge-port timers are the kernel's; a lifetime runs.
        link.pop("stats64", None)
        for address in link.get("addr_info", ()):
            for key in ("valid_life_time", "preferred_life_time"):
                if address.get(key, 0) < 0xFFFFFFFF:
                    address[key] = "running"
    return found


def _json(namespace: str, *words: str) -> list[Any]:
    said = ip("-j", *words, namespace=namespace)
    found: list[Any] = json.loads(said) if said.strip() else []
    return found
