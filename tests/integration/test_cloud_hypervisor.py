"""Cloud Hypervisor, by a double: no package registry has the program (doubles/__init__.py says what that proves)."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.integration import doubles, images, small_kernel
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually

pytestmark = pytest.mark.skipif(
    not Path("/dev/kvm").exists(), reason="/dev/kvm is missing, which the monitor is given: not run"
)

GUEST = "localhost/small:test"
ANNOTATIONS = {"io.unikernel.monitor": "cloud-hypervisor"}


@pytest.fixture(scope="module", autouse=True)
def _image(containerd: Containerd) -> None:
    containerd.load(images.Image(GUEST, {"/kernel": small_kernel.kernel()}, entrypoint=("/kernel",)))


def started(pod: Pod, *words: str, grace: int = 20) -> str:
    """The guest, by a user who is not root; `grace` is the pod's terminationGracePeriodSeconds."""
    return pod.run(
        GUEST,
        args=words,
        annotations={**ANNOTATIONS, "io.kubernetes.pod.terminationGracePeriod": str(grace)},
        security={"run_as_user": pod.client.messages.Int64Value(value=1000)},
    )


@pytest.mark.parametrize(("version", "mtu"), [("v52.0", "None"), ("v51.2", "1500")])
def test_a_guest_is_reached_and_asked_to_power_down(
    version: str, mtu: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """Only one that must ask for its tap's MTU is let into the pod's namespace."""
    doubles.place(node.base, "cloud-hypervisor", version)
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        netns = containerd.netns(pod.address)
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        container = started(pod, "'quoted words'")
        assert node.ping(pod.address)
        assert node.neighbour(pod.address) == before
        eventually(lambda: "-- \"'quoted words'\"" in pod.log(container))
        assert {f"mtu={mtu}"} < set(pod.log(container).splitlines())
        assert f" ip={pod.address}::" in pod.log(container)
        monitors = Path(f"/proc/{cri.pid(container)}/ns/net")
        assert monitors.samefile(netns) is (mtu == "1500")
        cri.stop(container, grace=10)
        assert cri.wait_exit(container).exit_code == 0
        assert pod.log(container).endswith("powering off")
        assert node.ping(pod.address), "the pod has its address back"


def test_one_that_takes_no_notice_is_cut_off_within_the_grace(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    doubles.place(node.base, "cloud-hypervisor", "v52.0")
    with containerd.cri.pod("unikernel") as pod:
        container = started(pod, "deaf", grace=2)
        begun = time.monotonic()
        containerd.cri.stop(container, grace=10)
        assert containerd.cri.wait_exit(container).exit_code == 128 + signal.SIGTERM
        assert 0.9 < time.monotonic() - begun < 3
