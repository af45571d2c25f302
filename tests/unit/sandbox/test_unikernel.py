"""The decisions about a unikernel that need no pod: when it gets no network."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from shim.errors import ImageFault, NetworkFault, ShimError
from shim.monitors.base import Monitor
from shim.oci.image import Unikernel
from shim.oci.kernel import Kernel
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord
from shim.sandbox.unikernel import Plumbed, plumb


async def plumbed(devices: tuple[str, ...] | None, network: str, netns: str | None) -> Plumbed:
    """Plumb where nothing of the node may be asked for."""
    kernel = Kernel(family="solo5", machine="x86_64", tender="spt", net_devices=devices)
    image = Unikernel(path=Path("/k.spt"), kernel=kernel, guest="solo5", monitor="spt", network=network)
    record = ContainerRecord(namespace="n", container="c", sandbox="s", bundle=Path("/b"))
    return await plumb(cast(Node, None), record, image, netns, cast(Monitor, None))


@pytest.mark.parametrize(
    ("devices", "network", "netns"),
    [((), "auto", "/pod"), ((), "auto", None), ((), "none", "/pod"), (None, "none", "/pod"), (None, "auto", "")],
)
async def test_no_network(devices: tuple[str, ...] | None, network: str, netns: str | None) -> None:
    """A kernel without devices leaves the pod's network as it is."""
    assert await plumbed(devices, network, netns) == Plumbed()


@pytest.mark.parametrize(
    ("devices", "network", "netns", "error", "why"),
    [
        (None, "required", None, NetworkFault, "has no pod network; run it in a pod with a network"),
        (("a",), "required", "", NetworkFault, "has no pod network"),
        (("a",), "auto", None, ImageFault, r"devices \[a\], the pod offers \[none\]"),
        (("a",), "none", "/pod", ImageFault, r"devices \[a\], the pod offers \[none\]"),
        ((), "required", "/pod", ImageFault, "its kernel's manifest names no network device"),
    ],
)
async def test_no_network_where_there_must_be_one(
    devices: tuple[str, ...] | None, network: str, netns: str | None, error: type[ShimError], why: str
) -> None:
    with pytest.raises(error, match=why):
        await plumbed(devices, network, netns)
