"""CRI's networking: addresses, host names, resolvers and ports of a pod with a unikernel in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.integration import images
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.cri import Client, Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import NODE, Node
from tests.integration.tender_double import REFERENCE, image

SANDBOXERS = ("unikernel", "unikernel-podsandbox")
DNS = {"servers": ["192.0.2.53"], "searches": ["svc.cluster.example"], "options": ["ndots:3"]}

# Asks UDP's echo service (RFC 862) at an address and a port, and prints what it says.
_ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(3)
    asking.connect((sys.argv[1], int(sys.argv[2])))
    asking.send(b"who is there")
    print(asking.recv(100).decode())
"""


@pytest.fixture(scope="module", autouse=True)
def _image(containerd: Containerd) -> None:
    containerd.load(image())


@pytest.fixture(scope="module", params=SANDBOXERS)
def pod(request: pytest.FixtureRequest, containerd: Containerd, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the module's tests share: each removes the containers it makes."""
    with containerd.cri.pod(request.param, name="named") as shared:
        yield shared


def echoed(node: Node, address: str, port: int) -> str:
    """What the echo service answers the node."""
    return node.run("python3", "-ISc", _ASK, address, str(port)).strip()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_the_address_in_the_pods_status_is_the_unikernels(
    sandboxer: str, layout: str, node: Node, cri: Client, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """Who asks at it is answered by the guest, in both kinds of cluster network, and again after a restart."""
    with cri.pod(handler(sandboxer, layout)) as pod:
        for attempt in range(2):
            with pod.running(REFERENCE, name="same", attempt=attempt, args=[f"address={pod.address}"]):
                assert cri.sandbox(pod.id).network.ip == pod.address
                assert echoed(node, pod.address, 7) == "who is there"


def test_a_pod_has_its_host_name(pod: Pod, cri: Client) -> None:
    """The pod's host name is that of its ordinary containers."""
    with pod.running(REFERENCE), pod.running(images.BUSYBOX, command=["/bin/busybox", "hostname"]) as sidecar:
        cri.wait_exit(sidecar)
        assert pod.log(sidecar) == "named"


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_pod_has_its_resolvers_and_its_files(
    sandboxer: str, cri: Client, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """The pod's DNS configuration, host name and the node's hosts are files of its ordinary containers, and they share
    /dev/shm."""
    with cri.pod(sandboxer, name="named", dns=DNS) as pod:
        pod.run(REFERENCE)
        sidecar, another = (pod.run(images.BUSYBOX, command=["/bin/sleep", "600"]) for _ in range(2))
        words = cri.exec(sidecar, "cat", "/etc/resolv.conf").stdout.split()
        assert words == ["search", *DNS["searches"], "nameserver", *DNS["servers"], "options", *DNS["options"]]
        assert cri.exec(sidecar, "cat", "/etc/hostname").stdout == "named\n"
        assert cri.exec(sidecar, "cat", "/etc/hosts").stdout == Path("/etc/hosts").read_text()
        assert cri.exec(sidecar, "sh", "-c", "echo shared > /dev/shm/word").exit_code == 0
        assert cri.exec(another, "cat", "/dev/shm/word").stdout == "shared\n"


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_port_of_the_container_alone_is_at_the_pods_address(
    sandboxer: str, node: Node, cri: Client, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """A mapping without a host port opens nothing on the node; the guest is reached at its own address."""
    with cri.pod(handler(sandboxer, "ports"), ports=[{"protocol": cri.messages.UDP, "container_port": 7}]) as pod:
        pod.run(REFERENCE, args=[f"address={pod.address}"])
        assert echoed(node, pod.address, 7) == "who is there"
        assert f" {pod.address}:7" not in node.run("iptables-save", "-t", "nat")


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_host_port_leads_to_the_unikernel(
    sandboxer: str, node: Node, cri: Client, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """What is sent to the node's port is the guest's, in its restart too, and no rule of it outlives the pod."""
    mapping = {"protocol": cri.messages.UDP, "container_port": 7, "host_port": 8007}
    with cri.pod(handler(sandboxer, "ports"), ports=[mapping]) as pod:
        for attempt in range(2):
            with pod.running(REFERENCE, name="same", attempt=attempt, args=[f"address={pod.address}"]):
                assert echoed(node, NODE, 8007) == "who is there"
        pod.stop()
        assert f"{pod.address}:7" not in node.run("iptables-save", "-t", "nat")


def test_a_pod_has_no_link_of_the_nodes(pod: Pod, cri: Client) -> None:
    """HostNetwork false: a sidecar sees the pod's links, not the node's."""
    with pod.running(images.BUSYBOX, command=["/bin/ip", "-o", "link"]) as sidecar:
        cri.wait_exit(sidecar)
        links = pod.log(sidecar)
        assert "eth0" in links and "uplink0" not in links and "cni0" not in links


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_in_the_nodes_network_a_unikernel_has_none(
    sandboxer: str, node: Node, cri: Client, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """HostNetwork true: sidecars have the node's links; a unikernel that needs a network is refused."""
    before = node.ip("address")
    with cri.pod(sandboxer, host_network=True) as pod:
        with pod.running(images.BUSYBOX, command=["/bin/ip", "-o", "link"]) as sidecar:
            cri.wait_exit(sidecar)
            assert "uplink0" in pod.log(sidecar)
        for wish, words in (("required", "demands a network"), ("auto", r"the pod offers \[none\]")):
            with pytest.raises(grpc.RpcError, match=words):
                pod.run(REFERENCE, annotations={"io.unikernel.network": wish})
        assert [link["ifname"] for link in node.ip("address")] == [link["ifname"] for link in before]
