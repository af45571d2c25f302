"""CRI's stats: a unikernel's use of CPU and memory is its monitor's, by its cgroup."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from tests.integration import images
from tests.integration.containerd import Containerd
from tests.integration.cri import Client, Pod
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.tender_double import REFERENCE, image

_MIB = 1 << 20
LABELS = {"counted": "yes"}


@pytest.fixture(scope="module", params=["unikernel", "unikernel-podsandbox"])
def pod(request: pytest.FixtureRequest, node: Node, containerd: Containerd, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the module's tests share, in a cgroup of its own; each removes the containers it makes."""
    containerd.load(image())
    parent = f"{node.cgroup_parent}/{request.param}"
    with containerd.cri.pod(request.param, cgroup_parent=parent, labels=LABELS) as shared:
        yield shared
    node.remove_cgroups(request.param)


def of_container(cri: Client, container: str) -> Any:
    """ContainerStats."""
    return cri.call("ContainerStats", cri.messages.ContainerStatsRequest(container_id=container)).stats


def listed(cri: Client, **chosen: Any) -> set[str]:
    """The ids in ListContainerStats; `chosen` are fields of its filter, and without any there is none."""
    request = cri.messages.ListContainerStatsRequest(filter=chosen or None)
    return {each.attributes.id for each in cri.call("ListContainerStats", request).stats}


def of_pod(cri: Client, pod: Pod) -> Any:
    """PodSandboxStats."""
    return cri.call("PodSandboxStats", cri.messages.PodSandboxStatsRequest(pod_sandbox_id=pod.id)).stats


def test_a_unikernels_stats_say_whose_they_are_and_of_when(pod: Pod, cri: Client) -> None:
    """ContainerStats carries id, name, labels and annotations, and the time of each count."""
    with pod.running(REFERENCE, name="counted", labels=LABELS, annotations={"note": "kept"}) as container:
        found = of_container(cri, container)
        assert found.attributes.id == container and found.attributes.metadata.name == "counted"
        assert dict(found.attributes.labels) == LABELS and dict(found.attributes.annotations) == {"note": "kept"}
        assert found.cpu.timestamp > 0 and found.memory.timestamp > 0


def test_the_memory_counted_is_the_guests(pod: Pod, cri: Client) -> None:
    """What the guest touches is in its working set, and no more than the limit."""
    with pod.running(REFERENCE, args=["memory=64", "say=touched"], memory=128 * _MIB) as container:
        wait_for_log(pod, container)
        memory = of_container(cri, container).memory
        assert 64 * _MIB < memory.working_set_bytes.value < 128 * _MIB
        assert 64 * _MIB < memory.rss_bytes.value < 128 * _MIB


def test_the_time_counted_grows_as_the_guest_works(pod: Pod, node: Node, cri: Client) -> None:
    """An answered ping is work, and nothing is ever taken back."""
    with pod.running(REFERENCE, args=[f"address={pod.address}"]) as container:
        readings = []
        for _ in range(3):
            assert node.ping(pod.address)
            readings.append(of_container(cri, container).cpu)
        times = [each.usage_core_nano_seconds.value for each in readings]
        assert 0 < times[0] < times[1] < times[2]
        assert readings[0].timestamp < readings[1].timestamp < readings[2].timestamp


def test_stats_are_listed_of_all_or_of_those_chosen(pod: Pod, cri: Client) -> None:
    """ListContainerStats holds every container that runs, or those that fit id, pod and labels."""
    with ExitStack() as stack:
        container = stack.enter_context(pod.running(REFERENCE, labels=LABELS))
        sidecars = {stack.enter_context(pod.running(images.BUSYBOX, command=["/bin/sleep", "600"])) for _ in range(2)}
        assert {container, *sidecars} <= listed(cri)
        assert listed(cri, pod_sandbox_id=pod.id) == {container, *sidecars}
        assert listed(cri, id=container) == {container}
        assert listed(cri, pod_sandbox_id=pod.id, label_selector=LABELS) == {container}
        assert listed(cri, label_selector={"counted": "no"}) == set()


def test_what_has_ended_is_not_counted(pod: Pod, cri: Client) -> None:
    """A unikernel that has ended uses nothing, and does not spoil the list for those that run."""
    with pod.running(REFERENCE) as container, pod.running(images.BUSYBOX) as sidecar:
        cri.stop(container)
        assert sidecar in listed(cri, pod_sandbox_id=pod.id)
        with pytest.raises(grpc.RpcError):
            of_container(cri, "nobody")


def test_a_pods_stats_are_its_containers_and_its_networks(pod: Pod, node: Node, cri: Client) -> None:
    """PodSandboxStats sums the pod's cgroup, lists its containers, and counts processes and eth0's bytes."""
    with (
        pod.running(REFERENCE, args=[f"address={pod.address}", "memory=32"]) as container,
        pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as sidecar,
    ):
        assert node.ping(pod.address)
        found = of_pod(cri, pod)
        assert found.attributes.id == pod.id and dict(found.attributes.labels) == LABELS
        assert {each.attributes.id for each in found.linux.containers} == {container, sidecar}
        assert found.linux.process.process_count.value >= 2
        assert found.linux.memory.working_set_bytes.value > 32 * _MIB
        eth0 = found.linux.network.default_interface
        assert eth0.name == "eth0" and eth0.rx_bytes.value > 0 and eth0.tx_bytes.value > 0
        assert node.ping(pod.address)
        later = of_pod(cri, pod)
        assert later.linux.cpu.usage_core_nano_seconds.value > found.linux.cpu.usage_core_nano_seconds.value
        assert later.linux.network.default_interface.rx_bytes.value > eth0.rx_bytes.value


def test_pods_stats_are_listed_by_id_and_labels(pod: Pod, cri: Client) -> None:
    """ListPodSandboxStats holds the pods that its filter fits."""

    def ids(**chosen: Any) -> set[str]:
        request = cri.messages.ListPodSandboxStatsRequest(filter=chosen)
        return {each.attributes.id for each in cri.call("ListPodSandboxStats", request).stats}

    with pod.running(REFERENCE):
        assert ids(id=pod.id) == ids(label_selector=LABELS) == {pod.id}
        assert ids(label_selector={"counted": "no"}) == set()


def wait_for_log(pod: Pod, container: str) -> None:
    """Wait until the guest has said a word. Raises AssertionError."""
    deadline = time.monotonic() + 5
    while not pod.log(container):
        assert time.monotonic() < deadline, "the guest says nothing"
        time.sleep(0.02)
