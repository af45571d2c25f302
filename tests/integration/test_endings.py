"""Whatever way a pod ends, eth0 is whole again before the CNI plugin's DEL.

The reference `bridge` plugin asks eth0 for its address to find the masquerade rules that it made at ADD; where eth0 had
none, the rules stay on the node for good. So none left is the proof.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from shim.network.addressing.interfaces import DATAPLANES
from tests.integration import tender_double
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _image(containerd: Containerd) -> None:
    containerd.load(tender_double.image())


def rules(node: Node) -> set[str]:
    """The node's masquerade rules for pods."""
    return {line for line in node.run("iptables-save", "-t", "nat").splitlines() if line.startswith(("-A", ":CNI-"))}


def monitor(containerd: Containerd, container: str) -> int:
    """The monitor's pid, as containerd knows it."""
    listed = next(line.split() for line in containerd.ctr("task", "ls").splitlines() if line.startswith(container))
    return int(listed[1])


def stop_the_pod(pod: Pod, containerd: Containerd, container: str) -> None:
    pod.stop()


def remove_the_pod(pod: Pod, containerd: Containerd, container: str) -> None:
    pod.client.call("RemovePodSandbox", pod.client.messages.RemovePodSandboxRequest(pod_sandbox_id=pod.id))


def stop_the_container_first(pod: Pod, containerd: Containerd, container: str) -> None:
    pod.client.stop(container)
    pod.stop()


def kill_the_monitor(pod: Pod, containerd: Containerd, container: str) -> None:
    os.kill(monitor(containerd, container), signal.SIGKILL)
    pod.client.wait_exit(container)
    pod.stop()


def kill_the_monitor_meanwhile(pod: Pod, containerd: Containerd, container: str) -> None:
    os.kill(monitor(containerd, container), signal.SIGKILL)
    pod.stop()


ENDINGS: tuple[Callable[[Pod, Containerd, str], None], ...] = (
    stop_the_pod,
    remove_the_pod,
    stop_the_container_first,
    kill_the_monitor,
    kill_the_monitor_meanwhile,
)


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_the_plugin_finds_its_rules_whatever_way_a_pod_ends(
    dataplane: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    before = rules(node)
    annotations = {"io.unikernel.dataplane": dataplane}
    pods: list[tuple[Callable[[Pod, Containerd, str], None], Pod, str]] = []
    try:
        for ending in ENDINGS:
            pod = containerd.cri.pod("unikernel")
            words = [f"address={pod.address}"]
            pods.append((ending, pod, pod.run(tender_double.REFERENCE, args=words, annotations=annotations)))
        for ending, pod, container in pods:
            eventually(partial(node.ping, pod.address))
            made = {line for line in rules(node) if f" {pod.address}/" in line}
            assert made, "the plugin made rules that name the pod's address"
            ending(pod, containerd, container)
            assert not {line for line in rules(node) if f" {pod.address}/" in line}, ending.__name__
    finally:
        for _, pod, _ in pods:
            pod.remove()
    assert rules(node) == before
