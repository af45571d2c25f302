"""One pod, one test: every containerd, every way it can be asked for a sandbox.

The guest is the tender's double: what is tested is what containerd and the daemon make of each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
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
def of_line(request: pytest.FixtureRequest, line: str) -> Containerd:
    """The shared one of that line."""
    if line == "2":
        request.getfixturevalue("daemon")
    server: Containerd = request.getfixturevalue(
        {"1.6": "containerd16", "1.7": "containerd17", "2": "containerd"}[line]
    )
    server.load(tender_double.image())
    return server


@pytest.mark.parametrize(("line", "sandboxer"), WAYS)
def test_a_pods_whole_life(line: str, sandboxer: str, of_line: Containerd) -> None:
    containerd, node = of_line, of_line.node
    cri, pb = containerd.cri, containerd.cri.messages
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


#: What a sandbox plugin is asked, and what a sandbox's shim is asked instead.
_QUESTIONS = {
    "Create": "CreateSandbox",
    "Start": "StartSandbox",
    "Platform": "Platform",
    "Status": "SandboxStatus",
    "Metrics": "SandboxMetrics",
    "Wait": "WaitSandbox",
    "Stop": "StopSandbox",
    "Shutdown": "ShutdownSandbox",
}
SERVICES = ("Controller", "Sandbox")


@pytest.fixture
def door(daemon: Daemon) -> Iterator[Door]:
    with Door(daemon.socket, "k8s.io") as opened:
        yield opened


def ask(door: Door, service: str, question: str, **fields: Any) -> Any:
    """The Controller's question, of whichever service."""
    if service == "Controller":
        return door.controller(question, **fields)
    return door.sandbox(_QUESTIONS[question], **fields)


@pytest.mark.parametrize("sandboxer", ["unikernel-shim", "unikernel"])
def test_both_services_tell_the_same_of_a_pod(
    sandboxer: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, door: Door
) -> None:
    with containerd.cri.pod(sandboxer) as pod:
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        statuses = [ask(door, service, "Status", sandbox_id=pod.id, verbose=True) for service in SERVICES]
        for name in ("sandbox_id", "state", "pid", "info", "created_at"):
            assert getattr(statuses[0], name) == getattr(statuses[1], name), name
        assert statuses[0].state == "SANDBOX_READY" and json.loads(statuses[0].info["unikernel-shim"])["netns"]
        platforms = [ask(door, service, "Platform", sandbox_id=pod.id).platform for service in SERVICES]
        assert platforms[0] == platforms[1] and platforms[0].os == "linux"
        for service in SERVICES:
            metric = ask(door, service, "Metrics", sandbox_id=pod.id).metrics
            assert metric.id == pod.id and metric.timestamp.seconds > 0
            assert _memory(metric.data) > 0
            with pytest.raises(grpc.RpcError, match="has been started") as refused:
                ask(door, service, "Start", sandbox_id=pod.id)
            assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        door.sandbox("PingSandbox", sandbox_id=pod.id)
        door.controller("Update", sandbox_id=pod.id, sandbox={"sandbox_id": pod.id}, fields=["extensions"])


def _memory(data: AnyMessage) -> int:
    if data.type_url == "io.containerd.cgroups.v1.Metrics":
        return int(cgroups_v1_pb2.Metrics.FromString(data.value).memory.usage.usage)
    assert data.type_url == "io.containerd.cgroups.v2.Metrics"
    return int(cgroups_v2_pb2.Metrics.FromString(data.value).memory.usage)


@pytest.mark.parametrize("service", SERVICES)
def test_nobodys_pod_is_not_found_whatever_is_asked(service: str, door: Door) -> None:
    for question in _QUESTIONS.keys() - {"Create"}:
        with pytest.raises(grpc.RpcError, match="nobody") as refused:
            ask(door, service, question, sandbox_id="nobody")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND, question
    call, method = (door.controller, "Update") if service == "Controller" else (door.sandbox, "PingSandbox")
    with pytest.raises(grpc.RpcError, match="nobody"):
        call(method, sandbox_id="nobody")


@pytest.mark.parametrize("service", SERVICES)
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
    service: str, fields: dict[str, Any], words: str, code: grpc.StatusCode, door: Door, daemon: Daemon
) -> None:
    before = _files(daemon)
    with pytest.raises(grpc.RpcError, match=words) as refused:
        ask(door, service, "Create", **{"sandbox_id": "senseless", **fields})
    assert refused.value.code() is code
    assert "senseless" not in {held.id for held in door.inspection("List").sandboxes}
    assert _files(daemon) <= before


def _files(daemon: Daemon) -> set[Path]:
    return {path for path in daemon.run_dir.rglob("*") if path.suffix != ".log"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_without_a_cgroup_of_its_own_has_no_metrics(service: str, door: Door) -> None:
    ask(door, service, "Create", sandbox_id="bare")
    try:
        with pytest.raises(grpc.RpcError, match="no cgroup of its own") as refused:
            ask(door, service, "Metrics", sandbox_id="bare")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    finally:
        ask(door, service, "Shutdown", sandbox_id="bare")
