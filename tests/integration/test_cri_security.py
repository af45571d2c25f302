"""CRI's security context: what of it holds for a unikernel's monitor, and what for its pod's other containers.

A monitor is confined further than any pod may ask for: privileges, capabilities and namespaces of the node's are never
its. What confines it (user, groups, seccomp, AppArmor, out-of-memory score) is as the pod says.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration import images
from tests.integration.containerd import Containerd
from tests.integration.cri import Client, Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.tender_double import REFERENCE, image

SANDBOXERS = ("unikernel", "unikernel-podsandbox")
#: The tender's image with users in it.
USERS = "localhost/solo5-users:test"
_PASSWD = b"root:x:0:0::/:\nguest:x:1234:1300::/:\n"
_GROUP = b"root:x:0:\nprimary:x:1300:\nfurther:x:1400:guest\n"
_SLEEP = ["/bin/sleep", "600"]


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd) -> None:
    plain = image()
    with_users = {**plain.files, "/etc/passwd": _PASSWD, "/etc/group": _GROUP}
    containerd.load(plain, dataclasses.replace(plain, reference=USERS, files=with_users))


@pytest.fixture(scope="module", params=SANDBOXERS)
def pod(request: pytest.FixtureRequest, containerd: Containerd, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the module's tests share: each removes the containers it makes."""
    with containerd.cri.pod(request.param) as shared:
        yield shared


def process(cri: Client, container: str) -> dict[str, str]:
    """What the kernel says of the container's first process (proc(5), status)."""
    lines = Path(f"/proc/{cri.pid(container)}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def capabilities(status: dict[str, str]) -> int:
    """Every capability that the process has or could get."""
    sets = (status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    return sum(int(each, 16) for each in sets)


def mounted(cri: Client, container: str) -> dict[str, list[str]]:
    """The options of each mount that the container's first process sees, by mount point."""
    lines = Path(f"/proc/{cri.pid(container)}/mountinfo").read_text().splitlines()
    return {line.split()[4]: line.split()[5].split(",") for line in lines}


def namespace(pid: int | str, kind: str) -> str:
    """Which namespace of the kind a process is in."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def test_a_monitor_runs_as_the_user_and_groups_asked_for(pod: Pod, cri: Client) -> None:
    """RunAsUser, RunAsGroup and SupplementalGroups are the monitor's, real and effective."""
    asked = {"run_as_user": {"value": 1234}, "run_as_group": {"value": 2345}, "supplemental_groups": [3456, 4567]}
    with pod.running(REFERENCE, security=asked) as container:
        status = process(cri, container)
        assert status["Uid"].split() == ["1234"] * 4 and status["Gid"].split() == ["2345"] * 4
        assert {"3456", "4567"} <= set(status["Groups"].split())


def test_a_user_is_found_by_name_in_the_image(pod: Pod, cri: Client) -> None:
    """RunAsUserName is looked up in the image; the user's groups there and the asked for ones are the monitor's."""
    with pod.running(USERS, security={"run_as_username": "guest", "supplemental_groups": [3456]}) as container:
        status = process(cri, container)
        assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("1234", "1300")
        assert {"1400", "3456"} <= set(status["Groups"].split())
    with pytest.raises(grpc.RpcError), pod.running(USERS, security={"run_as_username": "nobody-there"}):
        pass


def test_a_group_without_a_user_is_refused(pod: Pod) -> None:
    """RunAsGroup alone makes no sense, and containerd says so."""
    with pytest.raises(grpc.RpcError, match="group"):
        pod.create(REFERENCE, security={"run_as_group": {"value": 2345}})


@pytest.mark.parametrize("asked", [{"add_capabilities": ["ALL"]}, {"add_capabilities": ["SYS_ADMIN"]}, {}], ids=str)
def test_a_monitor_has_no_capability_whatever_is_asked_for(asked: dict[str, Any], pod: Pod, cri: Client) -> None:
    """Neither what is added nor the runtime's defaults reach it, in any of the five sets."""
    with pod.running(REFERENCE, security={"capabilities": asked}) as container:
        assert capabilities(process(cri, container)) == 0


def test_a_sidecar_has_the_capabilities_asked_for(pod: Pod, cri: Client) -> None:
    """Added and dropped beside a unikernel as in any pod."""
    net_admin, chown = 1 << 12, 1 << 0  # linux/capability.h
    asked = {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["CHOWN"]}
    with (
        pod.running(REFERENCE),
        pod.running(images.BUSYBOX, command=_SLEEP, security={"capabilities": asked}) as some,
        pod.running(images.BUSYBOX, command=_SLEEP, security={"capabilities": {"drop_capabilities": ["ALL"]}}) as none,
    ):
        effective = int(process(cri, some)["CapEff"], 16)
        assert effective & net_admin and not effective & chown
        assert int(process(cri, none)["CapEff"], 16) == 0


@pytest.mark.parametrize("asked", [True, False])
def test_a_monitor_gains_no_privilege_whatever_is_asked_for(asked: bool, pod: Pod, cri: Client) -> None:
    """no_new_privs is set for it always, for a sidecar as the pod says."""
    with (
        pod.running(REFERENCE, security={"no_new_privs": asked}) as container,
        pod.running(images.BUSYBOX, command=_SLEEP, security={"no_new_privs": asked}) as sidecar,
    ):
        assert process(cri, container)["NoNewPrivs"] == "1"
        assert process(cri, sidecar)["NoNewPrivs"] == str(int(asked))


def test_a_privileged_unikernel_has_no_privilege(
    containerd: Containerd, daemon: Daemon, clean_module: LeakCheck, cri: Client
) -> None:
    """`privileged` is for processes that manage the node, and a guest cannot: it is ignored for the monitor, and holds
    for a sidecar."""
    with cri.pod("unikernel", security={"privileged": True}) as pod:
        container = pod.run(REFERENCE, privileged=True)
        sidecar = pod.run(images.BUSYBOX, command=_SLEEP, privileged=True)
        status = process(cri, container)
        assert capabilities(status) == 0 and status["NoNewPrivs"] == "1"
        devices = {path.name for path in Path(f"/proc/{cri.pid(container)}/root/dev").iterdir()}
        assert devices <= {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "core"} | {
            f"std{name}" for name in ("in", "out", "err")
        }
        assert "ro" in mounted(cri, container)["/proc/sys"]
        assert int(process(cri, sidecar)["CapEff"], 16) & (1 << 21)  # CAP_SYS_ADMIN (linux/capability.h)


def test_no_container_is_more_privileged_than_its_pod(pod: Pod) -> None:
    """A privileged container in a pod that is not is refused."""
    with pytest.raises(grpc.RpcError, match="privileged"):
        pod.create(REFERENCE, privileged=True)


@pytest.mark.parametrize("asked", [True, False])
def test_a_monitors_root_is_read_only_whatever_is_asked_for(asked: bool, pod: Pod, cri: Client) -> None:
    """And so is all it sees, but /proc and /dev; the image's files are not there, only the kernel."""
    with pod.running(REFERENCE, security={"readonly_rootfs": asked}) as container:
        seen = mounted(cri, container)
        writable = {point for point, options in seen.items() if "rw" in options}
        assert "ro" in seen["/"] and "ro" in seen["/unikernel/kernel"]
        assert writable <= {"/proc", "/dev", "/dev/pts", "/dev/null"} | {p for p in writable if p.startswith("/proc/")}


def test_a_sidecars_root_is_read_only_where_it_is_asked_for(pod: Pod, cri: Client) -> None:
    """ReadOnlyRootfs of an ordinary container beside a unikernel."""
    for asked in (True, False):
        command = ["/bin/sh", "-c", "echo x > /written"]
        with pod.running(images.BUSYBOX, command=command, security={"readonly_rootfs": asked}) as sidecar:
            assert (cri.wait_exit(sidecar).exit_code != 0) is asked


def test_what_of_proc_is_the_nodes_is_hidden_from_a_monitor(pod: Pod, cri: Client) -> None:
    """Masked and read-only paths are the pod's and containerd's defaults together: a pod can add, not take away."""
    asked = {"masked_paths": ["/proc/cpuinfo"], "readonly_paths": ["/proc/tty"]}
    with pod.running(REFERENCE, security=asked) as container:
        seen = mounted(cri, container)
        assert {"/proc/cpuinfo", "/proc/timer_list"} <= seen.keys()
        assert "ro" in seen["/proc/tty"] and "ro" in seen["/proc/sys"]


def test_a_sidecar_hides_what_it_is_told_to(pod: Pod, cri: Client) -> None:
    """MaskedPaths and ReadonlyPaths of an ordinary container beside a unikernel."""
    asked = {"masked_paths": ["/proc/cpuinfo"], "readonly_paths": ["/proc/sys"]}
    with pod.running(images.BUSYBOX, command=_SLEEP, security=asked) as sidecar:
        assert cri.exec(sidecar, "cat", "/proc/cpuinfo").stdout == ""
        assert cri.exec(sidecar, "sh", "-c", "echo x > /proc/sys/net/ipv4/ip_forward").exit_code != 0


def test_a_monitor_is_filtered_as_asked_for(pod: Pod, cri: Client, tmp_path: Path) -> None:
    """Seccomp: the runtime's default profile, one of the node's, and unconfined, where nothing said is unconfined."""
    pb = cri.messages
    kinds = pb.SecurityProfile
    profile = tmp_path / "profile.json"
    rules = [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    filtered, free = "2", "0"  # SECCOMP_MODE_FILTER, SECCOMP_MODE_DISABLED (linux/seccomp.h)
    for asked, mode in (
        ({"profile_type": kinds.RuntimeDefault}, filtered),
        ({"profile_type": kinds.Localhost, "localhost_ref": str(profile)}, filtered),
        ({"profile_type": kinds.Unconfined}, free),
        (None, free),
    ):
        with pod.running(REFERENCE, security={"seccomp": asked}) as container:
            assert process(cri, container)["Seccomp"] == mode, asked


def test_a_profile_that_is_not_there_is_an_error(pod: Pod, cri: Client) -> None:
    """Neither a unikernel nor a sidecar runs unconfined because its seccomp or AppArmor profile is missing."""
    localhost = cri.messages.SecurityProfile.Localhost
    for missing in (
        {"seccomp": {"profile_type": localhost, "localhost_ref": "/no/such/profile.json"}},
        {"apparmor": {"profile_type": localhost, "localhost_ref": "no-such-profile"}},
    ):
        for reference in (REFERENCE, images.BUSYBOX):
            with pytest.raises(grpc.RpcError), pod.running(reference, security=missing):
                pass


def test_a_sidecars_filter_holds(pod: Pod, cri: Client, tmp_path: Path) -> None:
    """A profile that forbids setting the host name does, whatever capability there is."""
    profile = tmp_path / "profile.json"
    rules = [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    kinds = cri.messages.SecurityProfile
    admin = {"capabilities": {"add_capabilities": ["SYS_ADMIN"]}}
    for asked, succeeds in (
        ({"profile_type": kinds.Unconfined}, True),
        ({"profile_type": kinds.Localhost, "localhost_ref": str(profile)}, False),
    ):
        command = ["/bin/busybox", "hostname", "another"]
        with pod.running(images.BUSYBOX, command=command, security={**admin, "seccomp": asked}) as sidecar:
            assert (cri.wait_exit(sidecar).exit_code == 0) is succeeds


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_monitor_has_namespaces_of_its_own_whatever_is_asked_for(
    sandboxer: str, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck, cri: Client
) -> None:
    """HostPID and HostIPC hold for a sidecar; the monitor sees no process and no IPC object of the node's."""
    shared = {"namespace_options": {"pid": cri.messages.NODE, "ipc": cri.messages.NODE}}
    with cri.pod(sandboxer, security=shared) as pod:
        container = pod.run(REFERENCE, security=shared)
        sidecar = pod.run(images.BUSYBOX, command=_SLEEP, security=shared)
        for kind in ("pid", "ipc"):
            assert namespace(cri.pid(sidecar), kind) == namespace("self", kind)
        for kind in ("pid", "ipc", "uts", "mnt", "net"):
            assert namespace(cri.pid(container), kind) not in (
                namespace("self", kind),
                namespace(cri.pid(sidecar), kind),
            )


def test_sidecars_share_what_their_pod_shares(pod: Pod, cri: Client) -> None:
    """IPC, host name and network are one for the pod's ordinary containers and not the node's; processes are each's."""
    with (
        pod.running(images.BUSYBOX, command=_SLEEP) as one,
        pod.running(images.BUSYBOX, command=_SLEEP) as another,
    ):
        pids = cri.pid(one), cri.pid(another)
        for kind in ("ipc", "uts", "net"):
            found = {namespace(pid, kind) for pid in pids}
            assert len(found) == 1 and namespace("self", kind) not in found
        assert len({namespace(pid, "pid") for pid in (*pids, "self")}) == 3


def test_a_pod_is_in_the_nodes_user_namespace(pod: Pod, cri: Client) -> None:
    """hostUsers true, for a unikernel and for a sidecar."""
    with pod.running(REFERENCE) as container, pod.running(images.BUSYBOX, command=_SLEEP) as sidecar:
        assert {namespace(cri.pid(each), "user") for each in (container, sidecar)} == {namespace("self", "user")}


@pytest.mark.parametrize("sandboxer", SANDBOXERS)
def test_a_user_namespace_is_refused_with_the_reason(
    sandboxer: str, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck, cri: Client
) -> None:
    """hostUsers false is an error that names it, for a unikernel and for a sidecar, and nothing is left."""
    ids = [{"host_id": 100_000, "container_id": 0, "length": 65_536}]
    users = {"mode": cri.messages.POD, "uids": ids, "gids": ids}
    asked = {"namespace_options": {"pid": cri.messages.CONTAINER, "userns_options": users}}
    for reference in (REFERENCE, images.BUSYBOX):
        with (
            pytest.raises(grpc.RpcError, match="hostUsers"),
            cri.pod(sandboxer, security=asked) as pod,
            pod.running(reference, security=asked),
        ):
            pass


def test_a_monitor_is_offered_to_the_oom_killer_as_asked_for(pod: Pod, cri: Client) -> None:
    """oom_score_adj is the monitor's: the guest's memory is what the killer would gain."""
    with pod.running(REFERENCE, resources={"oom_score_adj": 873}) as container:
        assert Path(f"/proc/{cri.pid(container)}/oom_score_adj").read_text().strip() == "873"


def test_a_node_device_is_not_the_guests(pod: Pod, cri: Client) -> None:
    """A device that the pod asks for is a sidecar's; a monitor has what it opens itself and no other."""
    with (
        pod.running(REFERENCE, devices=["/dev/fuse"]) as container,
        pod.running(images.BUSYBOX, command=_SLEEP, devices=["/dev/fuse"]) as sidecar,
    ):
        assert Path(f"/proc/{cri.pid(sidecar)}/root/dev/fuse").is_char_device()
        assert not Path(f"/proc/{cri.pid(container)}/root/dev/fuse").exists()


def test_a_volume_is_a_sidecars(pod: Pod, cri: Client, tmp_path: Path) -> None:
    """A host path, through a symbolic link too, is mounted into an ordinary container. A guest that cannot have it is
    refused: it would miss what its pod says that it has."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("on the node\n")
    (tmp_path / "link").symlink_to("real")
    for source in ("real", "link"):
        mounts = {"/volume": str(tmp_path / source)}
        with pod.running(images.BUSYBOX, command=["/bin/cat", "/volume/file"], mounts=mounts) as sidecar:
            cri.wait_exit(sidecar)
            assert pod.log(sidecar) == "on the node"
        with pytest.raises(grpc.RpcError, match="/volume: this volume"), pod.running(REFERENCE, mounts=mounts):
            pass


@pytest.mark.parametrize("sandboxer", [*SANDBOXERS, "unikernel-shim"])
def test_a_pods_sysctls_are_its_containers(
    sandboxer: str, node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck, cri: Client
) -> None:
    """They are set in the pod's namespaces; the guest's stack has settings of its own."""
    asked = {"net.ipv4.ip_unprivileged_port_start": "99", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "100"}
    with cri.pod(sandboxer, sysctls=asked) as pod:
        sidecar = pod.run(images.BUSYBOX, command=_SLEEP)
        for name, value in asked.items():
            path = f"/proc/sys/{name.replace('.', '/')}"
            assert cri.exec(sidecar, "cat", path).stdout.strip() == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("kernel.threads-max", "100", "the whole node's"),
        ("net.core.no_such_thing", "1", "this kernel has no such setting"),
        ("net.ipv4.ip_unprivileged_port_start", "many", "cannot be set to 'many'"),
        ("net.ipv4..", "1", "no sysctl's name"),
    ],
)
def test_a_sysctl_that_cannot_be_the_pods_is_refused(
    name: str, value: str, words: str, node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck
) -> None:
    """With no pod left, and an error that says which it is and why."""
    before = [pod.id for pod in containerd.cri.pods()]
    with pytest.raises(grpc.RpcError, match=words):
        containerd.cri.pod("unikernel", sysctls={name: value})
    assert [pod.id for pod in containerd.cri.pods()] == before
