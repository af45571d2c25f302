"""The harness itself, proved with ordinary runc pods: what fails here is not the shim's fault."""

from __future__ import annotations

import subprocess

import grpc
import pytest

from tests.integration import guest, images
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.leaks import LeakCheck
from tests.integration.node import BLOCK, NODE, Node

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ordinary_pods_reach_each_other(layout: str, node: Node, containerd: Containerd, clean: LeakCheck) -> None:
    runc = handler("runc", layout)
    with containerd.cri.pod(runc) as one, containerd.cri.pod(runc) as other:
        there = one.run(images.BUSYBOX)
        back = other.run(images.BUSYBOX)
        assert containerd.cri.exec(there, "fetch", other.address).stdout == "an ordinary pod\n"
        assert containerd.cri.exec(back, "fetch", one.address).stdout == "an ordinary pod\n"
        assert node.fetch(one.address) == "an ordinary pod\n"
        assert node.ping(other.address)


def test_the_routed_layout_is_what_calico_leaves(node: Node, containerd: Containerd, clean: LeakCheck) -> None:
    with containerd.cri.pod("runc-routed") as pod:
        container = pod.run(images.BUSYBOX)
        routes = containerd.cri.exec(container, "ip", "route").stdout.splitlines()
        assert sorted(line.strip() for line in routes) == [
            "169.254.1.1 dev eth0 scope link",
            "default via 169.254.1.1 dev eth0",
        ]
        assert f"inet {pod.address}/32 " in containerd.cri.exec(container, "ip", "address", "show", "eth0").stdout
        assert containerd.cri.exec(container, "fetch", pod.address).exit_code == 0
        assert containerd.cri.exec(container, "ping", "-c", "1", "-W", "2", NODE).exit_code == 0
        assert "ee:ee:ee:ee:ee:ee" in containerd.cri.exec(container, "arp", "-n").stdout
        assert {"type": "blackhole", "dst": BLOCK, "flags": []} in node.ip("route", "show", "type", "blackhole")
        (host,) = node.ip("route", "show", f"{pod.address}/32")
        assert host["scope"] == "link" and host["dev"].startswith("cali")


def test_a_pod_left_behind_is_reported(node: Node, containerd: Containerd) -> None:
    check = LeakCheck(node, containerd, grace=0)
    with check:
        pod = containerd.cri.pod("runc")
        kinds = {line.partition(" ")[0] for line in check.new()}
        assert {"link", "iptables", "mount", "cgroup", "process", "file"} <= kinds
        pod.remove()
        check.settled()
        check._grace = 5.0


def test_an_exit_code_and_a_log_come_back(containerd: Containerd, clean: LeakCheck) -> None:
    with containerd.cri.pod("runc") as pod:
        container = pod.run(images.BUSYBOX, command=["/bin/sh", "-c", "echo last words; exit 7"])
        assert containerd.cri.wait_exit(container).exit_code == 7
        assert pod.log(container) == "last words"


def test_a_failure_is_containerds_own(containerd: Containerd, clean: LeakCheck) -> None:
    with pytest.raises(grpc.RpcError, match="no-such-handler"):
        containerd.cri.pod("no-such-handler")


def test_containerd_1_6_runs_a_pod(containerd16: Containerd) -> None:
    assert containerd16.version.startswith("1.6.")
    node = containerd16.node
    with LeakCheck(node, containerd16), containerd16.cri.pod("runc") as pod:
        pod.run(images.BUSYBOX)
        assert node.fetch(pod.address) == "an ordinary pod\n"


def test_containerd_2_is_the_version_the_tests_were_written_for(containerd: Containerd) -> None:
    assert containerd.version.startswith("2.1."), "the suite has moved on: read its release notes, then this line"


def test_images_of_every_kind_import(containerd: Containerd) -> None:
    containerd.load(images.linux(), *images.bad().values())


def test_the_guest_boots_and_serves_its_page(node: Node) -> None:
    """Without the shim: QEMU by hand, so that a broken guest is told from a broken shim."""
    node.run("ip", "tuntap", "add", "guest0", "mode", "tap")
    node.run("ip", "address", "add", "10.99.0.1/30", "dev", "guest0")
    node.run("ip", "link", "set", "guest0", "up")
    initrd = node.base / "initrd"
    initrd.write_bytes(guest.initrd())
    console = node.base / "console.log"
    words = "console=ttyS0 quiet ip=10.99.0.2::10.99.0.1:255.255.255.252:guest:eth0:off"
    command = guest.qemu(initrd, "guest0", console, words)
    process = subprocess.Popen(node.inside(*command), stdin=subprocess.DEVNULL)
    try:
        guest.wait_ready(console, process)
        page = guest.page(node.fetch("10.99.0.2"))
        assert page["unikernel"] == "yes" and page["address"] == "10.99.0.2" and len(page["boot"]) == 36
        assert page["mac"] == "02:00:00:00:00:99"
        assert "ok" in node.fetch("10.99.0.2", "/cgi-bin/ping?10.99.0.1").split()
        assert page["boot"] in node.fetch("10.99.0.2", "/cgi-bin/fetch?10.99.0.2")
    finally:
        process.kill()
        process.wait()
        node.run("ip", "link", "delete", "guest0")
