"""Unikernel pods through CRI on real containerd: the main job, in both cluster networks and both sandboxers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.integration import guest, images
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import served

pytestmark = pytest.mark.timeout(120)

SANDBOXERS = ("unikernel", "unikernel-podsandbox")


@pytest.fixture(scope="module", autouse=True)
def _linux_image(containerd: Containerd) -> None:
    containerd.load(images.linux())


def unikernel(pod: Pod, **options: Any) -> str:
    """Start the Linux guest in the pod."""
    annotations = {**images.LINUX_ANNOTATIONS, **options.pop("annotations", {})}
    return pod.run(images.LINUX, annotations=annotations, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_pod_next_to_it_reaches_the_unikernel_and_back(
    sandboxer: str, layout: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    with cri.pod(handler("runc", layout)) as beside, cri.pod(handler(sandboxer, layout)) as pod:
        ordinary = beside.run(images.BUSYBOX)
        # The router learns the pod's MAC while eth0 still has it, as in a cluster.
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        container = unikernel(pod)
        page = served(node, pod.address)
        assert page["unikernel"] == "yes" and page["address"] == pod.address
        assert page["mac"] == before == node.neighbour(pod.address)

        fetched = cri.exec(ordinary, "fetch", pod.address)
        assert guest.page(fetched.stdout)["boot"] == page["boot"]
        assert cri.exec(ordinary, "ping", "-c", "1", "-W", "2", pod.address).exit_code == 0
        back = node.fetch(pod.address, f"/cgi-bin/fetch?{beside.address}")
        assert "an ordinary pod" in back
        assert "ok" in node.fetch(pod.address, f"/cgi-bin/ping?{beside.address}").split()

        assert "guest: ready" in pod.log(container)
        cri.stop(container)
        assert cri.wait_exit(container).exit_code in (0, 143)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dataplane", ["mirror", "macvtap"])
def test_a_pod_chooses_its_dataplane(
    dataplane: str, layout: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    with cri.pod(handler("runc", layout)) as beside, cri.pod(handler("unikernel", layout)) as pod:
        beside.run(images.BUSYBOX)
        netns = containerd.netns(pod.address)
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        unikernel(pod, annotations={"io.unikernel.dataplane": dataplane, "io.unikernel.nics": "eth0"})
        page = served(node, pod.address)
        assert page["mac"] == before == node.neighbour(pod.address)
        assert "an ordinary pod" in node.fetch(pod.address, f"/cgi-bin/fetch?{beside.address}")
        links = node.run("nsenter", f"--net={netns}", "ip", "-d", "link")
        assert "bridge" not in links and ("macvtap" in links) is (dataplane == "macvtap")


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_sidecar_and_the_unikernels_second_life(
    sandboxer: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """An init container runs with eth0 as it is; the unikernel takes eth0 over; its restart has the same identity."""
    cri = containerd.cri
    with cri.pod(sandboxer) as pod:
        init = pod.run(images.BUSYBOX, command=["/bin/sh", "-c", "ip address show eth0; hostname"])
        assert cri.wait_exit(init).exit_code == 0
        assert f"inet {pod.address}/" in pod.log(init)
        cri.remove(init)
        sidecar = pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        macs = []
        for _ in range(2):
            container = unikernel(pod)
            macs.append(served(node, pod.address)["mac"])
            assert "inet " not in cri.exec(sidecar, "ip", "-4", "address", "show", "eth0").stdout
            cri.stop(container)
            cri.wait_exit(container)
            assert f"inet {pod.address}/" in cri.exec(sidecar, "ip", "address", "show", "eth0").stdout
            cri.remove(container)
        assert macs[0] == macs[1]


def test_what_containerd_shows_of_it(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        container = unikernel(pod, memory=256 << 20)
        served(node, pod.address)
        usage = json.loads(containerd.ctr("task", "metrics", "--format", "json", container))
        assert 0 < int(usage["memory"]["usage"]["usage"]) <= 256 << 20
        assert int(usage["memory"]["usage"]["limit"]) == 256 << 20
        assert int(usage["cpu"]["usage"]["total"]) > 0
        assert container in containerd.ctr("task", "ls")
        assert len(containerd.ctr("task", "ps", container).splitlines()) == 2  # a header, and the monitor
        with pytest.raises(grpc.RpcError, match="one address space") as refused:
            cri.exec(container, "ls")
        assert refused.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN)


def test_a_guest_that_uses_all_its_memory_is_not_killed(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """Its kernel writes to every page when it starts (init_on_free); what is left of the limit is its monitor's."""
    with containerd.cri.pod("unikernel") as pod:
        container = unikernel(
            pod, memory=256 << 20, annotations={"io.unikernel.cmdline": f"{guest.WORDS} init_on_free=1"}
        )
        served(node, pod.address)
        assert len(node.fetch(pod.address, "/cgi-bin/sum?16384").split()[0]) == 64
        usage = json.loads(containerd.ctr("task", "metrics", "--format", "json", container))
        assert int(usage["memory"]["usage"]["usage"]) > (256 - 82) << 20, "the guest has all that there is for it"
        assert container in containerd.ctr("task", "ls")


def test_the_guest_ends_by_itself(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """eth0 is whole again before anybody deletes anything."""
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        sidecar = pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        container = unikernel(pod, annotations={"io.unikernel.cmdline": f"{guest.WORDS} harness.poweroff=1"})
        assert cri.wait_exit(container).exit_code == 0
        assert f"inet {pod.address}/" in cri.exec(sidecar, "ip", "address", "show", "eth0").stdout


def test_a_shared_process_namespace_is_refused_with_the_way_out(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """And containerd lives: 2.1.9 crashes when Create answers UNIMPLEMENTED over gRPC."""
    with containerd.cri.pod("unikernel") as pod, pytest.raises(grpc.RpcError, match="podsandbox"):
        pod.run(images.BUSYBOX, share_processes=True)
    assert containerd.pid
    with containerd.cri.pod("unikernel-podsandbox") as pod:
        pod.run(images.BUSYBOX, share_processes=True)


def test_twenty_pods_at_once_leave_nothing(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri

    def one(number: int) -> Pod:
        pod = cri.pod(handler("unikernel", "routed" if number % 2 else "subnet"))
        unikernel(pod)
        return pod

    with ThreadPoolExecutor(20) as pool:
        pods = list(pool.map(one, range(20)))
        addresses = {pod.address for pod in pods}
        assert len(addresses) == 20
        list(pool.map(Pod.remove, pods))
