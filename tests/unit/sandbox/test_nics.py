"""Each row of the table in shim/sandbox/nics.py, and each way in which the two sides do not match."""

from __future__ import annotations

import pytest

from shim.errors import ImageFault, InvalidRequest
from shim.oci.annotations import Assignment, parse_nics
from shim.sandbox.nics import match


def matched(devices: str | None, offered: str, wanted: str = "") -> str:
    """The match as text: "device=interface" or "interface"."""
    found = match(
        None if devices is None else tuple(devices.split()),
        tuple(offered.split()),
        parse_nics(wanted) if wanted else (),
        "kernel.spt",
    )
    return " ".join(f"{nic.device}={nic.interface}" if nic.device else nic.interface for nic in found)


@pytest.mark.parametrize(
    ("devices", "offered", "wanted", "result"),
    [
        (None, "eth0 net1", "", "eth0 net1"),
        (None, "", "", ""),
        (None, "eth0 net1 net2", "net2,eth0", "net2 eth0"),
        (None, "eth0 net1", "net1", "net1"),
        ("", "eth0", "", ""),
        ("", "", "", ""),
        ("service", "eth0", "", "service=eth0"),
        ("service management", "eth0 net1", "", "service=eth0 management=net1"),
        ("net1 eth0", "eth0 net1", "", "net1=net1 eth0=eth0"),
        ("net1", "eth0 net1", "", "net1=net1"),
        ("net1 service", "eth0 net1", "", "net1=eth0 service=net1"),
        ("service management", "eth0 net1", "management=eth0,service=net1", "service=net1 management=eth0"),
        ("service", "eth0 net1", "service=net1", "service=net1"),
        ("eth0", "eth0 net1", "eth0=net1", "eth0=net1"),
    ],
)
def test_table(devices: str | None, offered: str, wanted: str, result: str) -> None:
    assert matched(devices, offered, wanted) == result


def test_a_match_is_in_the_manifests_order() -> None:
    assert match(("b", "a"), ("eth0", "net1"), parse_nics("a=eth0,b=net1"), "k") == (
        Assignment("net1", "b"),
        Assignment("eth0", "a"),
    )


@pytest.mark.parametrize(
    ("devices", "offered", "why"),
    [
        ("a b", "eth0", r"asks for the network devices \[a, b\], the pod offers \[eth0\]; give the pod as many"),
        ("a", "", r"asks for the network devices \[a\], the pod offers \[none\]; give the pod as many"),
        ("a", "eth0 net1", r"devices \[a\], the pod offers \[eth0, net1\]; say which .* io\.unikernel\.nics, as in a="),
    ],
)
def test_what_does_not_match_names_both_sides(devices: str, offered: str, why: str) -> None:
    with pytest.raises(ImageFault, match=why) as caught:
        matched(devices, offered)
    assert caught.value.subject == "kernel.spt"


@pytest.mark.parametrize(
    ("devices", "offered", "wanted", "why"),
    [
        (None, "eth0 net1", "net2", r"no interface 'net2' .* offers \[eth0, net1\]; name one of those"),
        (None, "", "eth0", r"no interface 'eth0' .* offers \[none\]; remove it"),
        (None, "eth0", "eth0,eth0", "eth0 cannot be two NICs"),
        (None, "eth0 net1", "a=eth0,b=net1", r"'a' names a device, and the kernel has no manifest .*; write eth0,net1"),
        ("a b", "eth0 net1", "a=eth0,b=eth0", "eth0 cannot be two NICs"),
        ("a b", "eth0 net1", "a=eth0,a=net1", r"devices \[a, b\], each of them once; the annotation names \[a, a\]"),
        ("a b", "eth0 net1", "a=eth0", r"devices \[a, b\], each of them once; the annotation names \[a\]"),
        ("a", "eth0 net1", "a=eth0,b=net1", r"devices \[a\], each of them once; the annotation names \[a, b\]"),
        (
            "a",
            "eth0",
            "eth0",
            r"devices \[a\], each of them once; the annotation names \[none\]; write DEVICE=INTERFACE",
        ),
        ("a", "eth0", "a=net1", r"no interface 'net1' .* offers \[eth0\]"),
        ("", "eth0", "eth0", "names no network device; remove it"),
    ],
)
def test_an_annotation_that_does_not_match(devices: str | None, offered: str, wanted: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        matched(devices, offered, wanted)
    assert caught.value.subject == "io.unikernel.nics"
