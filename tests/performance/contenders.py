"""Who is measured beside whom: pods of this runtime and of its peers, on one containerd and one pod network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

from tests.integration import images, tender_double
from tests.integration.cri import Client, Pod
from tests.integration.images import Image

RUNC = "runc"
ORDINARY = "ours, ordinary container"
LINUX = "ours, Linux under QEMU"

#: containerd's runtime handlers of the peers, beside those of the harness. urunc's is there where a user has its shim.
_CRUN: Final[dict[str, Any]] = {"runtime_type": "io.containerd.runc.v2"}
_URUNC: Final[dict[str, Any]] = {
    "runtime_type": "io.containerd.urunc.v2",
    "pod_annotations": ["com.urunc.unikernel.*"],
    "container_annotations": ["com.urunc.unikernel.*"],
}


@dataclass(frozen=True)
class Contender:
    """A pod with one container. `words` are its arguments, in which `{address}`, `{prefix}` and `{gateway}` are filled
    in as the pod has them; `port` is a TCP port at which it answers, 0 for one that answers ARP itself."""

    name: str
    handler: str
    image: Image
    words: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    port: int = 0

    def sandbox(self, cri: Client) -> Pod:
        """RunPodSandbox."""
        return cri.pod(self.handler, annotations=self.annotations)

    def run(self, pod: Pod, network: IPv4Network | IPv6Network) -> None:
        """CreateContainer and StartContainer, in the pod network that it is told of."""
        told = {"address": pod.address, "prefix": str(network.prefixlen), "gateway": str(network[1])}
        pod.run(self.image.reference, args=[word.format(**told) for word in self.words], annotations=self.annotations)


def peers() -> dict[str, dict[str, Any]]:
    """The runtime handlers that containerd needs for them: their settings by name."""
    found: dict[str, dict[str, Any]] = {}
    if crun := shutil.which("crun"):
        found["crun"] = {**_CRUN, "options": {"BinaryName": crun}}
    if shutil.which("containerd-shim-urunc-v2"):
        found["urunc"] = _URUNC
    return found


def ordinary(name: str, handler: str) -> Contender:
    """A busybox that serves HTTP."""
    return Contender(name, handler, images.busybox(), port=80)


def kernel() -> Path | None:
    """The user's Solo5 kernel: KERNEL, with KERNEL_ARGS, as `make demo` has them."""
    return Path(os.environ["KERNEL"]) if os.environ.get("KERNEL") else None


def smallest() -> Contender:
    """The smallest monitor there is: the user's kernel on its tender from PATH, else the tender's double."""
    if own := kernel():
        image = Image("localhost/own:test", {"/kernel": own.read_bytes()}, entrypoint=("/kernel",))
        words = os.environ.get("KERNEL_ARGS", "").split()
        return Contender(f"ours, {own.name} on its tender", "unikernel", image, words)
    return Contender("ours, the tender's double", "unikernel", tender_double.image(), ["address={address}"])


def urunc() -> Contender:
    """The same kernel under urunc's shim, described in its own annotations."""
    ours = smallest()
    (path,) = ours.image.entrypoint
    annotations = {
        "com.urunc.unikernel.unikernelType": "mirage",
        "com.urunc.unikernel.hypervisor": "spt",
        "com.urunc.unikernel.binary": path,
    }
    return Contender("urunc", "urunc", ours.image, ours.words, annotations)


def linux() -> Contender:
    """The test guest."""
    return Contender(LINUX, "unikernel", images.linux(), annotations=images.LINUX_ANNOTATIONS, port=80)
