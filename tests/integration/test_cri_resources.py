"""CRI's resources: limits land in the cgroup of a unikernel's monitor, and can be changed while it runs."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from shim import stats
from tests.integration.cri import Client, Pod
from tests.integration.node import Node
from tests.integration.tender_double import REFERENCE

_MIB = 1 << 20
ASKED = {
    "cpu_period": 50_000,
    "cpu_quota": 25_000,
    "cpu_shares": 512,
    "cpuset_cpus": "0",
    "memory_limit_in_bytes": 96 * _MIB,
}


def limits(pid: int) -> dict[str, int | str]:
    """What the cgroup of a process may use, in the words of LinuxContainerResources, of v1 and of v2."""
    found = stats.cgroup_of(pid)

    def read(controller: str, v1: str, v2: str) -> list[str]:
        directory = found.v1.get(controller)
        path = directory / v1 if directory is not None else (found.v2 or Path()) / v2
        return path.read_text().split()

    if "cpu" in found.v1:
        quota, period = read("cpu", "cpu.cfs_quota_us", "")[0], read("cpu", "cpu.cfs_period_us", "")[0]
        shares = int(read("cpu", "cpu.shares", "")[0])
    else:
        quota, period = read("cpu", "", "cpu.max")
        # The engines' conversion (runc, docs/cgroup-v2.md), undone.
        shares = round((int(read("cpu", "", "cpu.weight")[0]) - 1) * 262142 / 9999) + 2
    return {
        "cpu_period": int(period),
        "cpu_quota": int(quota),
        "cpu_shares": shares,
        "cpuset_cpus": read("cpuset", "cpuset.cpus", "cpuset.cpus")[0],
        "memory_limit_in_bytes": int(read("memory", "memory.limit_in_bytes", "memory.max")[0]),
    }


def update(cri: Client, container: str, **resources: int | str) -> None:
    """UpdateContainerResources."""
    request = cri.messages.UpdateContainerResourcesRequest(container_id=container, linux=resources)
    cri.call("UpdateContainerResources", request)


def test_limits_are_the_monitors(pod: Pod, cri: Client) -> None:
    """CPU time, share and set, and memory are limited for the monitor, and so for its guest."""
    with pod.running(REFERENCE, resources=ASKED) as container:
        assert limits(cri.pid(container)) == ASKED


def test_a_monitor_is_in_its_pods_cgroup(pod: Pod, node: Node, cri: Client) -> None:
    """Whatever the pod as a whole may use, it may use of that."""
    with pod.running(REFERENCE) as container:
        lines = Path(f"/proc/{cri.pid(container)}/cgroup").read_text().splitlines()
        assert any(line.endswith(f":{node.cgroup_parent}/{container}") for line in lines)


def test_limits_can_be_changed_while_it_runs(pod: Pod, cri: Client) -> None:
    """UpdateContainerResources changes what it names and nothing else."""
    with pod.running(REFERENCE, resources=ASKED) as container:
        update(cri, container, cpu_quota=40_000, cpu_period=50_000, memory_limit_in_bytes=128 * _MIB)
        assert limits(cri.pid(container)) == {**ASKED, "cpu_quota": 40_000, "memory_limit_in_bytes": 128 * _MIB}


def test_limits_can_be_changed_before_it_starts(pod: Pod, cri: Client) -> None:
    """UpdateContainerResources of a created container holds from its first instruction."""
    with pod.created(REFERENCE, resources=ASKED) as container:
        update(cri, container, cpu_shares=256)
        cri.start(container)
        assert limits(cri.pid(container)) == {**ASKED, "cpu_shares": 256}


def test_what_cannot_be_is_refused_and_changes_nothing(pod: Pod, cri: Client) -> None:
    """A limit that the kernel does not take is an error; so is a container that is not there."""
    with pod.running(REFERENCE, resources=ASKED) as container:
        with pytest.raises(grpc.RpcError):
            update(cri, container, cpuset_cpus="4096")
        assert limits(cri.pid(container)) == ASKED
        with pytest.raises(grpc.RpcError) as refused:
            update(cri, "nobody", cpu_shares=256)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_no_guest_is_started_without_room_for_it(pod: Pod, cri: Client) -> None:
    """A memory limit below what monitor and guest need is an error that says so."""
    with pytest.raises(grpc.RpcError, match="memory limit"), pod.running(REFERENCE, memory=4 * _MIB):
        pass
