"""A real Linux guest under QEMU in pods' networks: both versions of IP, several NICs, every dataplane, offloads."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shim.network.addressing.interfaces import DATAPLANES
from tests.integration import guest, layouts
from tests.integration.foreground import eventually, request, running
from tests.integration.layouts import Site, Target

pytestmark = pytest.mark.timeout(90)

_KIBIBYTES = 4096
# Feature bits of a network device (virtio 1.2, 5.1.3): checksums and TCP segmentation left to the other side, in both
# directions, and the MTU told by the device.
_FEATURES = {
    "CSUM": 0, "GUEST_CSUM": 1, "MTU": 3, "GUEST_TSO4": 7, "GUEST_TSO6": 8, "HOST_TSO4": 11, "HOST_TSO6": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """The words that boot the guest."""
    initrd = tmp_path_factory.mktemp("guest") / "initrd"
    initrd.write_bytes(guest.initrd())
    return ("--initrd", initrd, guest.kernel())


@contextmanager
def guest_in(site: Site, directory: Path, *words: str | Path) -> Iterator[Path]:
    """The guest in the pod; afterwards the pod is as it was."""
    before = found_in(site.pod)
    with running(directory, site.pod, *words) as console:
        yield console
    assert found_in(site.pod) == before


def found_in(pod: str) -> dict[str, Any]:
    """The dump of a pod. Each of its interfaces has the same link-local route, in the order in which they came up."""
    found = layouts.dump(pod)
    return found | {"routes6": sorted(found["routes6"], key=str)}


def reaches(target: Target, own: str) -> bool:
    """Whether the guest answers `target` at `own`, and `target` the guest."""
    there = eventually(lambda: layouts.pings(target.namespace, own, count=1))
    return there and b"ok" in request(target.namespace, own, f"/cgi-bin/ping?{target.address}").split()


def seen(target: Target) -> dict[str, str]:
    """The guest's page, and `show` under that name, as `target` gets them."""
    found = guest.page(request(target.namespace, target.own, "/").decode())
    return found | {"show": request(target.namespace, target.own, "/cgi-bin/show").decode()}


def nic(show: str, device: str) -> str:
    """What `show` has about one of the guest's devices."""
    found = re.search(rf"^\d+: {device}: .*\n(?: .*\n)*", show, re.MULTILINE)
    return found[0] if found else ""


def traffic(pod: str) -> dict[str, dict[str, int]]:
    """What the pod's eth0 has counted: `tx` is from the guest."""
    (found,) = json.loads(layouts.ip("-s", "-j", "link", "show", "eth0", namespace=pod))
    counted: dict[str, dict[str, int]] = found["stats64"]
    return counted


def larger_than_the_mtu(before: dict[str, int], after: dict[str, int]) -> bool:
    """Whether the frames counted meanwhile, acknowledgements included, are larger on average than any on a wire."""
    return after["bytes"] - before["bytes"] > 1514 * (after["packets"] - before["packets"])


@pytest.mark.parametrize(
    ("layout", "dataplane"),
    # What the kernel does is told by the quicker guest in every layout on every dataplane (test_network.py); here each
    # layout is read by Linux, and each dataplane used by it.
    [
        *(("dual-stack", "mirror"), ("calico-dual-stack", "bridge"), ("ipv6-64", "macvtap")),
        *(("multus", "mirror"), ("multus", "macvtap")),
    ],
)
def test_the_guest_and_everybody_reach_each_other(
    layout: str, dataplane: str, boot: tuple[str | Path, ...], tmp_path: Path
) -> None:
    with layouts.ALL[layout]() as site, guest_in(site, tmp_path, "--dataplane", dataplane, *boot) as console:
        outcomes = {str(target): reaches(target, target.own) for target in site.targets}
        assert all(outcomes.values()), (outcomes, console.read_text())
        page = seen(site.targets[0])
        assert page["address"] == (site.address if "." in site.address else "none")
        assert page["address6"] == (site.address6 or (site.address if ":" in site.address else "none"))
        assert page["mac"] == site.mac
        assert f"mtu {site.mtu} " in nic(page["show"], "eth0")
        for position in range(len(site.interfaces)):
            assert nic(page["show"], f"eth{position}"), page["show"]


def test_nics_are_in_the_order_that_was_asked_for(boot: tuple[str | Path, ...], tmp_path: Path) -> None:
    with layouts.ALL["multus"]() as site, guest_in(site, tmp_path, "--nics", "net1,eth0", *boot):
        page = seen(next(target for target in site.targets if target.interface == "net1"))
        assert page["address"] == "192.168.1.2"
        assert page["mac"] == "02:00:5e:10:01:02"
        assert f"inet {site.address}/" in nic(page["show"], "eth1") and site.mac in nic(page["show"], "eth1")
        assert not nic(page["show"], "eth2")
        assert all(reaches(target, target.own) for target in site.targets)
        assert "inet6 " in layouts.ip("addr", "show", "net2", namespace=site.pod), "net2 is nobody's but the pod's"


def test_an_interface_that_is_not_asked_for_stays_the_pods(boot: tuple[str | Path, ...], tmp_path: Path) -> None:
    with layouts.ALL["multus"]() as site, guest_in(site, tmp_path, "--nics", "eth0", *boot):
        assert "inet 192.168.1.2/" in layouts.ip("addr", "show", "net1", namespace=site.pod)
        assert "inet " not in layouts.ip("addr", "show", "eth0", namespace=site.pod)
        assert reaches(site.targets[0], site.address)


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_megabytes_arrive_as_they_were_sent(dataplane: str, boot: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Both ways, over both versions of IP, with checksums and segmentation left undone between guest and pod."""
    sent = os.urandom(_KIBIBYTES * 1024)
    with layouts.ALL["dual-stack"]() as site, guest_in(site, tmp_path, "--dataplane", dataplane, *boot):
        for target in site.targets:
            if target.role == "peer":
                before = traffic(site.pod)
                got = request(target.namespace, target.own, f"/cgi-bin/blob?{_KIBIBYTES}")
                assert larger_than_the_mtu(before["tx"], traffic(site.pod)["tx"]), "the guest cut its segments itself"
                said = request(target.namespace, target.own, f"/cgi-bin/sum?{_KIBIBYTES}").split()[0].decode()
                assert (len(got), hashlib.sha256(got).hexdigest()) == (len(sent), said)
                before = traffic(site.pod)
                theirs = request(target.namespace, target.own, "/cgi-bin/sum", sent).split()[0].decode()
                assert theirs == hashlib.sha256(sent).hexdigest()
                assert larger_than_the_mtu(before["rx"], traffic(site.pod)["rx"]), "the pod cut the guest's segments"
        negotiated = re.search(r"features eth0: ([01]+)", seen(site.targets[0])["show"])
        assert negotiated is not None
        assert {name for name, bit in _FEATURES.items() if negotiated[1][bit] == "1"} == set(_FEATURES)
