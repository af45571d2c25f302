"""`unikernel-shim check` and `inspect` of a real pod, what CRI is told of it, and the metric."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.integration import images, paths
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.pseudo import command_line
from tests.integration.ready import served
from tests.integration.scrape import reachable, scraped
from tests.integration.test_grpcurl import grpcurl

pytestmark = pytest.mark.timeout(120)

STRANGER = "02:00:00:00:00:99"


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd) -> None:
    containerd.load(images.linux())


def shim(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line as an operator types it."""
    return subprocess.run(command_line(daemon, *words), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sandboxer", ["unikernel", "unikernel-podsandbox"])
def test_a_pod_that_is_right_and_then_wrong(
    sandboxer: str, layout: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    cri = containerd.cri
    with cri.pod(handler(sandboxer, layout)) as pod:
        container = pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        mac = served(node, pod.address)["mac"]
        pod_namespace = pod.config.metadata.namespace

        for name in (pod.name, f"{pod_namespace}/{pod.name}", pod.id, pod.id[:10]):
            done = shim(daemon, "check", name)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing is wrong" in done.stdout and mac in done.stdout
        said = json.loads(shim(daemon, "check", "--json", pod.name).stdout)
        assert {finding["probe"]: finding["outcome"] for finding in said["findings"]} == {
            "guest": "proven", "gateway": "proven", "router": "proven",
        }  # fmt: skip
        assert reachable(daemon, pod.name) == {"guest": 1.0, "gateway": 1.0, "router": 1.0}

        inspected = json.loads(shim(daemon, "inspect", "--json", pod.name).stdout)
        listed = {entry["id"]: entry["unikernel"] for entry in json.loads(shim(daemon, "ps", "--json").stdout)}
        for found in (listed[pod.id], inspected["unikernel"]):
            assert (found["container"], found["guest"], found["monitor"]) == (container, "linux", "qemu")
        assert inspected["unikernel"]["plumbed_in"] > 0
        assert inspected["unikernel"]["nics"][0]["mac"] == mac
        assert inspected["unikernel"]["nics"][0]["address"].split("/")[0] == pod.address
        assert inspected["unikernel"]["check"]["failed"] is False
        page = shim(daemon, "inspect", pod.name).stdout
        assert f"{pod_namespace}/{pod.name}" in page and mac in page and "nothing is wrong" in page
        if sandboxer == "unikernel":
            assert told_to_cri(containerd, pod.id)["unikernel"]["nics"] == inspected["unikernel"]["nics"]

        failed = scraped(daemon)['unikernel_shim_checks_total{outcome="failed"}']
        device = node.ip("route", "get", pod.address)[0]["dev"]
        entry = (pod.address, "lladdr", STRANGER, "dev", device, "nud", "permanent")
        node.run("ip", "neighbour", "replace", *entry)
        try:
            done = shim(daemon, "check", pod.name)
        finally:
            node.run("ip", "neighbour", "del", pod.address, "dev", device)
        assert done.returncode == 1, done.stdout + done.stderr
        assert STRANGER in done.stdout and "to do:" in done.stdout and "1 of 3 failed" in done.stdout
        assert reachable(daemon, pod.name) == {"guest": 1.0, "gateway": 1.0, "router": 0.0}
        assert scraped(daemon)['unikernel_shim_checks_total{outcome="failed"}'] == failed + 1

        cri.stop(container)
        cri.wait_exit(container)
        done = shim(daemon, "check", pod.name)
        # containerd deletes a task as soon as it has ended, and then it is no more of the pod.
        assert done.returncode == 2 and ("stopped" in done.stderr or "no unikernel" in done.stderr)
        assert reachable(daemon, pod.name) == {}


def told_to_cri(containerd: Containerd, sandbox: str) -> dict[str, Any]:
    """What `crictl inspectp` would show of ours."""
    request = containerd.cri.messages.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
    found: dict[str, Any] = json.loads(containerd.cri.call("PodSandboxStatus", request).info["unikernel-shim"])
    return found


def test_a_pod_without_a_unikernel_and_no_pod(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        done = shim(daemon, "check", pod.name)
        assert done.returncode == 2 and "no unikernel" in done.stderr
        assert pod.id in shim(daemon, "inspect", pod.name).stdout
        listed = json.loads(grpcurl(daemon, "io.unikernel.shim.v1.Inspection/List").stdout)
        assert [entry["pod_name"] for entry in listed["sandboxes"] if entry["id"] == pod.id] == [pod.name]
    for command in ("check", "inspect"):
        done = shim(daemon, command, "nobody")
        assert done.returncode == 2 and "no such pod" in done.stderr and "Traceback" not in done.stderr


def test_a_guest_that_stopped_answering(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """Its monitor lives and does nothing: only asking the guest itself shows it."""
    with containerd.cri.pod("unikernel") as pod:
        container = pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        served(node, pod.address)
        pid = next(
            held["pid"]
            for held in json.loads(shim(daemon, "inspect", "--json", pod.id).stdout)["containers"]
            if held["id"] == container
        )
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        try:
            done = shim(daemon, "check", pod.id)
        finally:
            subprocess.run(["kill", "-CONT", str(pid)], check=True)
        assert done.returncode == 1 and "nobody answers ARP" in done.stdout, done.stdout
        assert "1 of 3 failed" in done.stdout
        served(node, pod.address)
        assert shim(daemon, "check", pod.id).returncode == 0


def test_the_service_is_not_there(tmp_path: Any) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}"\n')
    argv = [str(paths.DAEMON), "--config", str(config), "check", "any"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "does not answer" in done.stderr and "serve" in done.stderr
