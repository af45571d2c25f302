"""One pod, one test: every containerd, every way it can be asked for a sandbox.

The guest is the tender's double: what is tested is what containerd and the daemon make of each other.
"""

from __future__ import annotations

import json

import pytest

from tests.integration import images, tender_double
from tests.integration.containerd import Containerd
from tests.integration.leaks import LeakCheck

pytestmark = pytest.mark.timeout(60)

#: Runtime handlers by the line of containerd that knows them.
WAYS = (
    ("1.6", "unikernel-podsandbox"),
    ("1.7", "unikernel-podsandbox"),
    ("2", "unikernel-podsandbox"),
    ("2", "unikernel-shim"),
    ("2", "unikernel"),
)
#: What `inspect` calls the sandboxer.
_NAMES = {"unikernel": "unikernel", "unikernel-shim": "shim"}


@pytest.fixture
def containerd(request: pytest.FixtureRequest, line: str) -> Containerd:
    """The shared one of that line."""
    if line == "2":
        request.getfixturevalue("daemon")
    server: Containerd = request.getfixturevalue(
        {"1.6": "containerd16", "1.7": "containerd17", "2": "containerd"}[line]
    )
    server.load(tender_double.image())
    return server


@pytest.mark.parametrize(("line", "sandboxer"), WAYS)
def test_a_pods_whole_life(line: str, sandboxer: str, containerd: Containerd) -> None:
    cri, node, pb = containerd.cri, containerd.node, containerd.cri.messages
    assert containerd.version.startswith(line)
    with LeakCheck(node, containerd), cri.pod(sandboxer) as pod:
        assert cri.sandbox(pod.id).state == pb.SANDBOX_READY

        # An init container has the pod as the CNI plugin left it.
        init = pod.run(images.BUSYBOX, command=["/bin/sh", "-c", "ip address show eth0; cat /proc/sys/kernel/hostname"])
        assert cri.wait_exit(init).exit_code == 0
        assert f"inet {pod.address}/" in pod.log(init) and pod.name in pod.log(init)
        cri.remove(init)

        sidecar = pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        assert cri.exec(sidecar, "echo", "inside").stdout == "inside\n"

        # The router learns the pod's MAC while eth0 still has it, as in a cluster.
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        for life in range(2):
            unikernel = pod.run(
                tender_double.REFERENCE, name="unikernel", attempt=life, args=[f"address={pod.address}", "say=hello"]
            )
            node.run("ip", "neighbour", "flush", "to", pod.address)
            assert node.ping(pod.address)
            assert node.neighbour(pod.address) == before
            assert "inet " not in cri.exec(sidecar, "ip", "-4", "address", "show", "eth0").stdout

            assert cri.status(unikernel).state == pb.CONTAINER_RUNNING
            stats = cri.container_stats(unikernel)
            assert stats.memory.working_set_bytes.value > 0 and stats.cpu.usage_core_nano_seconds.value > 0

            cri.stop(unikernel)
            assert cri.wait_exit(unikernel).exit_code == 143
            assert pod.log(unikernel).split() == ["hello"]
            assert f"inet {pod.address}/" in cri.exec(sidecar, "ip", "address", "show", "eth0").stdout
            cri.remove(unikernel)

        info = cri.sandbox_info(pod.id)
        if sandboxer == "unikernel-podsandbox":
            assert json.loads(info["info"])["runtimeType"] == "io.containerd.unikernel.v2"  # containerd's own words
        else:
            told = json.loads(info["unikernel-shim"])
            assert told["sandboxer"] == _NAMES[sandboxer] and told["pod"]["name"] == pod.name
            assert [held["id"] for held in told["containers"]] == [sidecar]

        pod.stop()
        assert cri.sandbox(pod.id).state == pb.SANDBOX_NOTREADY
        pod.stop()
