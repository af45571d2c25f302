"""The reference CNI plugins' own pods: plumbed, undone, and then deleted by the plugin, which must find what it made.

`bridge` and `ptp` look at eth0's addresses to find the masquerade rules to remove, so what undoing does not bring back
stays on the node for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from shim.network.addressing.interfaces import DATAPLANES
from tests.integration import layouts
from tests.integration.cni_plugins import Network, PluginFailed
from tests.integration.guest_double import guest_double
from tests.integration.layouts import Site, Wire
from tests.integration.layouts.surroundings import NODE, Surroundings, surroundings, targets
from tests.integration.probes import Probes, own_addresses, plumbed, spoken_by, vantages
from tests.integration.vantage import Vantage
from tests.integration.wiretap import Wiretap

_SUBNETS = ("10.88.0.0/24", "fd00:88::/64")
#: The node's port that leads to the pod's echo service.
_HOST_PORT = 18007
_ECHO = 7
_FIREWALL = {"type": "firewall"}
_PORT = {
    "type": "portmap",
    "snat": True,
    "runtimeConfig": {"portMappings": [{"hostPort": _HOST_PORT, "containerPort": _ECHO, "protocol": "tcp"}]},
}
_MASQUERADING = {"ipMasq": True, "ipMasqBackend": "iptables"}
_BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, **_MASQUERADING}
#: Chains of plugins, by a name for the tests' ids.
CHAINS: dict[str, tuple[dict[str, Any], ...]] = {
    "bridge": (_BRIDGE, _PORT, _FIREWALL),
    "bridge-hairpin": ({**_BRIDGE, "hairpinMode": True},),
    "ptp": ({"type": "ptp", **_MASQUERADING}, _PORT, _FIREWALL),
    "macvlan": ({"type": "macvlan", "master": "nic"},),
    "ipvlan": ({"type": "ipvlan", "master": "nic"},),
    "vlan": ({"type": "vlan", "master": "nic", "vlanId": 5},),
}
#: Those whose pods share their parent's wire, which only `mirror` can take over: test_layouts.py has the refusals.
_MIRROR_ONLY = ("macvlan", "ipvlan")
SUITED = [(chain, each) for chain in CHAINS for each in DATAPLANES if chain not in _MIRROR_ONLY or each == "mirror"]
_UNSUPPORTED = "operation not supported"


@dataclass(frozen=True)
class Rules:
    """What plugins leave on a node that only they can take away. Empty chains and tables stay by design."""

    iptables: tuple[str, ...]
    nftables: tuple[str, ...]
    links: tuple[str, ...]
    routes: tuple[str, ...]

    @classmethod
    def of(cls, node: str) -> Rules:
        """Of a node's namespace."""
        saved = [layouts.inside(node, program).stdout for program in ("iptables-save", "ip6tables-save")]
        listed = json.loads(layouts.inside(node, "nft", "-j", "list", "ruleset").stdout)["nftables"]
        routes = [
            line
            for version in ("-4", "-6")
            for line in layouts.ip(version, "route", "show", "table", "all", namespace=node).splitlines()
        ]
        return cls(
            iptables=tuple(line for text in saved for line in text.splitlines() if line.startswith(("-A", ":CNI-"))),
            nftables=tuple(
                str([each for each in entry["rule"]["expr"] if "counter" not in each])
                for entry in listed
                if "rule" in entry
            ),
            links=tuple(sorted(layouts.devices(layouts.dump(node)) - {"cni0"})),
            routes=tuple(sorted(line for line in routes if "cni0" not in line)),
        )


def attach(place: Surroundings, network: Network) -> Site:
    """Both pods attached, and what the pod's result says of it."""
    result = network.add(place.pod)
    theirs = network.add(place.peer)
    macs = {each["name"]: each["mac"] for each in result["interfaces"] if each.get("sandbox")}
    ours, others = (
        {ip_interface(entry["address"]).version: entry for entry in each["ips"]} for each in (result, theirs)
    )
    site = Site(place.node, place.pod, place.peer, "", 0, "", "", "", mac=macs["eth0"])
    for version, entry in sorted(ours.items()):
        own, peer = (str(ip_interface(each["address"]).ip) for each in (entry, others[version]))
        found = targets(place, own, entry["gateway"], peer)
        if version == 4:
            site = replace(site, address=own, gateway=entry["gateway"])
        else:
            site = replace(site, address6=own, gateway6=entry["gateway"])
        site = replace(site, targets=(*site.targets, *found))
    outside = [each["name"] for each in result["interfaces"] if each["name"].startswith("veth")]
    return replace(site, wires=tuple(Wire(place.node, device, (site.mac,)) for device in outside))


@contextmanager
def node(area: str, directory: Path, chain: str) -> Iterator[tuple[Surroundings, Network]]:
    """A node with a LAN for those plugins that want a parent device, and the chain's plugins on it."""
    with surroundings(area) as place:
        for namespace in (place.pod, place.peer, place.node):
            # The plugins wait for duplicate address detection, a second for each pod.
            layouts.sysctl(namespace, "net.ipv6.conf.default.dad_transmits=0")
        if "master" in CHAINS[chain][0]:
            place.bridge("lan", "10.88.0.1/24", "fd00:88::1/64")
            layouts.configure(
                place.node, "link add nic type veth peer name nicport\nlink set nicport master lan up\nlink set nic up"
            )
        ipam = {
            "type": "host-local",
            "dataDir": str(directory),
            "ranges": [[{"subnet": subnet}] for subnet in _SUBNETS],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }
        first, *others = CHAINS[chain]
        yield place, Network(place.node, "net", {**first, "ipam": ipam}, *others)


@pytest.mark.parametrize(("chain", "dataplane"), SUITED)
async def test_plumbed_undone_and_deleted(tmp_path: Path, chain: str, dataplane: str) -> None:
    with node("ref", tmp_path, chain) as (place, network):
        try:
            # Chains that all pods share come with the first one and stay.
            network.add(place.pod)
            network.delete(place.pod)
        except PluginFailed as failed:
            if _UNSUPPORTED not in str(failed):
                raise
            pytest.skip(f"this kernel has no device type {chain}: {_UNSUPPORTED}")
        before = Rules.of(place.node)
        site = attach(place, network)
        layouts.settle(site.pod)
        attached = Rules.of(place.node)
        async with vantages(site) as vantage:
            async with plumbed(site, dataplane=dataplane) as (_, plan, taps):
                with Wiretap(site) as wiretap, guest_double(taps, plan.guest) as guest:
                    async with Vantage(guest.name, *own_addresses(site)) as inside:
                        failures = await Probes(site, inside, vantage).everything()
                        if _PORT in CHAINS[chain]:
                            await vantage[place.world].converse(NODE, port=_HOST_PORT)
                    failures += wiretap.intruders()
                    failures += await spoken_by(site)
                assert failures == [], plan.guest
            assert Rules.of(place.node) == attached
            assert attached != before or chain == "macvlan", "macvlan alone leaves nothing on its node"
        for pod in (place.pod, place.peer):
            network.delete(pod)
        assert Rules.of(place.node) == before
        assert list(layouts.devices(layouts.dump(place.pod))) == ["lo"]
