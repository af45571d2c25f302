"""One pod, one test: every containerd, every way it can be asked for a sandbox.

The guest is the tender's double: what is tested is what containerd and the daemon make of each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from shim.wire import cgroups_v1_pb2, cgroups_v2_pb2, types_pb2
from tests.integration import images, tender_double
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node

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
        ask = "ip address show eth0; cat /proc/sys/kernel/hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
        init = pod.run(images.BUSYBOX, command=["/bin/sh", "-c", ask])
        assert cri.wait_exit(init).exit_code == 0
        assert f"inet {pod.address}/" in pod.log(init)
        # containerd gives a pause container the ports below 1024 since 2.0.
        assert pod.log(init).split()[-2:] == [pod.name, "0" if line == "2" else "1024"]
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


@pytest.fixture
def door(daemon: Daemon) -> Iterator[Door]:
    with Door(daemon.socket, "k8s.io") as opened:
        yield opened


#: Each question, as the sandbox plugin is asked it and as a sandbox's shim is.
_QUESTIONS = (
    ("Platform", "Platform"),
    ("Status", "SandboxStatus"),
    ("Metrics", "SandboxMetrics"),
    ("Wait", "WaitSandbox"),
    ("Start", "StartSandbox"),
    ("Stop", "StopSandbox"),
    ("Shutdown", "ShutdownSandbox"),
)


@pytest.mark.parametrize("sandboxer", ["unikernel-shim", "unikernel"])
def test_both_services_tell_the_same_of_a_pod(
    sandboxer: str, node: Node, daemon: Daemon, door: Door, request: pytest.FixtureRequest
) -> None:
    containerd: Containerd = request.getfixturevalue("containerd")
    with LeakCheck(node, containerd), containerd.cri.pod(sandboxer) as pod:
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        status = door.controller("Status", sandbox_id=pod.id, verbose=True)
        other = door.sandbox("SandboxStatus", sandbox_id=pod.id, verbose=True)
        assert (status.state, status.pid, status.info, status.created_at) == (
            *(other.state, other.pid, other.info, other.created_at),
        )
        assert status.state == "SANDBOX_READY" and json.loads(status.info["unikernel-shim"])["netns"]
        platform = door.sandbox("Platform", sandbox_id=pod.id).platform
        assert platform == door.controller("Platform", sandbox_id=pod.id).platform and platform.os == "linux"

        for metric in (
            door.controller("Metrics", sandbox_id=pod.id).metrics,
            door.sandbox("SandboxMetrics", sandbox_id=pod.id).metrics,
        ):
            assert metric.id == pod.id and metric.timestamp.seconds > 0
            if metric.data.type_url == "io.containerd.cgroups.v1.Metrics":
                assert cgroups_v1_pb2.Metrics.FromString(metric.data.value).memory.usage.usage > 0
            else:
                assert cgroups_v2_pb2.Metrics.FromString(metric.data.value).memory.usage > 0

        door.sandbox("PingSandbox", sandbox_id=pod.id)
        door.controller("Update", sandbox_id=pod.id, sandbox={"sandbox_id": pod.id}, fields=["extensions"])
        for again in (door.controller, door.sandbox):
            with pytest.raises(grpc.RpcError, match="has been started") as refused:
                again("Start" if again == door.controller else "StartSandbox", sandbox_id=pod.id)
            assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_nobody_s_pod_is_not_found_whatever_is_asked(door: Door) -> None:
    asked = [(door.controller, method) for method, _ in _QUESTIONS] + [(door.controller, "Update")]
    asked += [(door.sandbox, method) for _, method in _QUESTIONS] + [(door.sandbox, "PingSandbox")]
    for call, method in asked:
        with pytest.raises(grpc.RpcError, match="nobody") as refused:
            call(method, sandbox_id="nobody")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND, method


@pytest.mark.parametrize(
    ("fields", "words", "code"),
    [
        ({"sandbox_id": "a/b"}, "a/b", grpc.StatusCode.INVALID_ARGUMENT),
        ({"netns_path": "run/netns/x"}, "must be absolute", grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"options": AnyMessage(type_url="runtime.v1.PodSandboxConfig", value=b"\x0a\xff")},
            "no PodSandboxConfig",
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        ({"rootfs": [types_pb2.Mount(type="bind", source="/")]}, "no root file system", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_a_sandbox_that_makes_no_sense_is_refused_and_not_kept(
    fields: dict[str, Any], words: str, code: grpc.StatusCode, door: Door, daemon: Daemon
) -> None:
    before = {path for path in daemon.run_dir.rglob("*") if path.suffix != ".log"}
    for create in (
        lambda **given: door.controller("Create", **given),
        lambda **given: door.sandbox("CreateSandbox", bundle_path="/run/b", **given),
    ):
        with pytest.raises(grpc.RpcError, match=words) as refused:
            create(**{"sandbox_id": "senseless", **fields})
        assert refused.value.code() is code
    assert "senseless" not in {held.id for held in door.inspection("List").sandboxes}
    assert {path for path in daemon.run_dir.rglob("*") if path.suffix != ".log"} <= before


def test_a_pod_without_a_cgroup_of_its_own_has_no_metrics(door: Door) -> None:
    for number, call in enumerate((door.controller, door.sandbox)):
        pod = f"bare{number}"
        door.controller("Create", sandbox_id=pod)
        try:
            with pytest.raises(grpc.RpcError, match="no cgroup of its own") as refused:
                call("Metrics" if call == door.controller else "SandboxMetrics", sandbox_id=pod)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        finally:
            door.sandbox("ShutdownSandbox", sandbox_id=pod)
