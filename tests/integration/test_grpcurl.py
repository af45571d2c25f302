"""The gRPC door as an operator opens it: grpcurl with nothing but the socket."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.integration import paths
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck

pytestmark = pytest.mark.timeout(60)


def grpcurl(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """grpcurl over the daemon's socket; the address comes before the last words, as it wants them."""
    *options, verb = words
    argv = [str(paths.BIN / "grpcurl"), "-plaintext", "-unix", *options, str(daemon.socket), *verb.split()]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_what_is_served_can_be_listed_and_described(daemon: Daemon) -> None:
    services = grpcurl(daemon, "list").stdout.split()
    assert {
        "containerd.services.sandbox.v1.Controller",
        "containerd.task.v3.Task",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } <= set(services)
    described = grpcurl(daemon, "describe containerd.task.v3.Task").stdout
    assert described.count("rpc ") == 17
    health = grpcurl(daemon, "grpc.health.v1.Health/Check")
    assert json.loads(health.stdout) == {"status": "SERVING"}


def test_a_pods_status(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        request = json.dumps({"sandbox_id": pod.id, "verbose": True})
        status = grpcurl(
            daemon,
            *("-H", "containerd-namespace: k8s.io", "-d", request),
            "containerd.services.sandbox.v1.Controller/Status",
        )
        assert status.returncode == 0, status.stderr
        answer = json.loads(status.stdout)
        assert answer["state"] == "SANDBOX_READY" and answer["version"] == 3
        assert answer["address"] == f"ttrpc+unix://{daemon.ttrpc_socket}"
        assert answer["info"]["netns"]


def test_an_unknown_pod_is_not_found(daemon: Daemon) -> None:
    request = json.dumps({"sandbox_id": "nobody"})
    status = grpcurl(daemon, "-d", request, "containerd.services.sandbox.v1.Controller/Status")
    assert status.returncode != 0
    assert "NotFound" in status.stderr and "nobody" in status.stderr


@pytest.mark.parametrize("identifier", ["a/b", "../up", "", "a b"])
def test_an_id_that_would_be_a_path_is_refused(identifier: str, daemon: Daemon) -> None:
    for method, field in (
        ("containerd.services.sandbox.v1.Controller/Create", "sandbox_id"),
        ("containerd.task.v3.Task/Create", "id"),
    ):
        request = json.dumps({field: identifier, **({"bundle": "/tmp"} if field == "id" else {})})
        answer = grpcurl(daemon, "-H", "containerd-namespace: k8s.io", "-d", request, method)
        assert "InvalidArgument" in answer.stderr and repr(identifier) in answer.stderr


def test_only_root_can_open_the_doors(daemon: Daemon) -> None:
    assert daemon.run_dir.stat().st_mode & 0o777 == 0o700
    for path in (daemon.socket, daemon.ttrpc_socket):
        assert path.stat().st_mode & 0o777 == 0o600
