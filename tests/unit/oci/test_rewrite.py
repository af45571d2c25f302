"""Rewriting a container's configuration: what must go, what must stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shim.errors import Unsupported
from shim.monitors.base import Launch
from shim.oci import rewrite

_KVM = rewrite.Device(Path("/dev/kvm"), 10, 232)


def spec() -> dict[str, Any]:
    return {
        "ociVersion": "1.1.0",
        "hostname": "pod",
        "process": {
            "args": ["/kernel", "x"],
            "env": ["A=1", "B=x=y"],
            "cwd": "/srv",
            "user": {"uid": 1000, "gid": 1000},
            "capabilities": {"bounding": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}],
            "apparmorProfile": "p",
            "selinuxLabel": "system_u:system_r:container_t:s0",
            "oomScoreAdj": 3,
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/etc/hosts", "source": "/x", "type": "bind"}],
        "hooks": {"prestart": [{"path": "/bin/x"}]},
        "annotations": {"io.kubernetes.cri.sandbox-id": "s1"},
        "linux": {
            "cgroupsPath": "/kubepods/pod1/c1",
            "resources": {"memory": {"limit": 64 << 20}, "devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "network", "path": "/run/netns/cni-1"},
                {"type": "ipc", "path": "/proc/5/ns/ipc"},
                {"type": "mount"},
                {"type": "cgroup"},
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            "rootfsPropagation": "shared",
        },
    }


def rewritten(given: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    launch = Launch(
        **{"argv": ("/usr/bin/m", "k"), "devices": (Path("/dev/kvm"),), "shares": (Path("/usr"),), **changes}
    )
    files = rewrite.Files(kernel=Path("/img/kernel"), initrd=Path("/img/initrd"))
    return rewrite.for_monitor(given or spec(), launch, (_KVM,), files, Path("/root-of-monitor"), "/run/netns/cni-1")


def test_the_monitor_is_confined() -> None:
    found = rewritten()
    process = found["process"]
    assert process["args"] == ["/usr/bin/m", "k"]
    assert process["noNewPrivileges"] is True
    assert set(process["capabilities"]) == {"bounding", "effective", "inheritable", "permitted", "ambient"}
    assert not any(process["capabilities"].values())
    assert found["root"] == {"path": "/root-of-monitor", "readonly": True}
    assert "hooks" not in found
    assert "rootfsPropagation" not in found["linux"]
    network = [entry for entry in found["linux"]["namespaces"] if entry["type"] == "network"]
    assert network == [{"type": "network"}]
    assert all("path" not in entry for entry in found["linux"]["namespaces"])


def test_it_sees_only_what_it_reads() -> None:
    binds = {m["destination"]: m for m in rewritten()["mounts"] if m["type"] == "bind"}
    assert set(binds) == {"/usr", "/unikernel/kernel", "/unikernel/initrd"}
    assert all({"ro", "nosuid", "nodev"} <= set(m["options"]) for m in binds.values())


def test_only_the_devices_it_opens_are_allowed() -> None:
    linux = rewritten()["linux"]
    assert [d["path"] for d in linux["devices"]] == ["/dev/kvm"]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 232, "access": "rw"},
    ]


def test_a_privileged_containers_devices_and_open_proc_are_not_the_monitors() -> None:
    """root writes to /proc/sys without any capability, so what hides it may not depend on what the pod asks for."""
    given = spec()
    given["linux"]["resources"]["devices"] += [{"allow": True, "access": "rwm"}]
    given["linux"]["devices"] = [{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]
    given["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    linux = rewritten(given)["linux"]
    assert linux["resources"]["devices"] == rewritten()["linux"]["resources"]["devices"]
    assert [d["path"] for d in linux["devices"]] == ["/dev/kvm"]
    assert {"/proc/kcore", "/proc/keys"} <= set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])


def test_what_the_pod_hides_besides_stays_hidden() -> None:
    given = spec()
    given["linux"] |= {"maskedPaths": ["/proc/kcore", "/proc/interrupts"], "readonlyPaths": ["/proc/tty"]}
    linux = rewritten(given)["linux"]
    assert linux["maskedPaths"].count("/proc/kcore") == 1 and "/proc/interrupts" in linux["maskedPaths"]
    assert "/proc/tty" in linux["readonlyPaths"]


def test_only_a_monitor_with_a_terminal_has_devpts() -> None:
    def pts(found: dict[str, Any]) -> list[str]:
        return [mount["type"] for mount in found["mounts"] if mount["destination"] == "/dev/pts"]

    given = spec()
    given["process"]["terminal"] = True
    assert pts(rewritten(given)) == ["devpts"] and pts(rewritten()) == []


def test_what_the_pod_asked_for_stays() -> None:
    found = rewritten()
    before = spec()
    for key in ("rlimits", "apparmorProfile", "selinuxLabel", "oomScoreAdj", "user"):
        assert found["process"][key] == before["process"][key]
    assert found["linux"]["cgroupsPath"] == "/kubepods/pod1/c1"
    assert found["linux"]["resources"]["memory"] == before["linux"]["resources"]["memory"]
    assert found["linux"]["seccomp"] == before["linux"]["seccomp"]
    assert found["annotations"] == before["annotations"]


def test_the_given_configuration_is_not_changed() -> None:
    given = spec()
    rewrite.for_monitor(
        given, Launch(argv=("/m",)), (_KVM,), rewrite.Files(kernel=Path("/k")), Path("/r"), "/run/netns/cni-1"
    )
    assert given == spec()


@pytest.mark.parametrize("why", [{"by_name": True}, {"in_pod": True}])
def test_attaching_by_name_and_asking_for_a_tap_need_the_pods_namespace(why: dict[str, Any]) -> None:
    namespaces = rewritten(**why)["linux"]["namespaces"]
    assert {"type": "network", "path": "/run/netns/cni-1"} in namespaces


def test_a_missing_pauses_namespaces_are_the_pods() -> None:
    given = spec()
    given["linux"]["namespaces"] = [
        {"type": "network", "path": "/proc/0/ns/net"},
        {"type": "ipc", "path": "/proc/0/ns/ipc"},
        {"type": "uts", "path": "/proc/0/ns/uts"},
        {"type": "pid"},
    ]
    assert rewrite.wants_pause(given)
    found = rewrite.in_pod_without_pause(given, "/run/netns/p", {"ipc": "/pin/ipc", "uts": "/pin/uts"})
    assert found["linux"]["namespaces"] == [
        {"type": "network", "path": "/run/netns/p"},
        {"type": "ipc", "path": "/pin/ipc"},
        {"type": "uts", "path": "/pin/uts"},
        {"type": "pid"},
    ]
    host = rewrite.in_pod_without_pause(given, "", {})
    assert host["linux"]["namespaces"] == [{"type": "pid"}]


def test_a_shared_process_namespace_is_refused_with_the_way_out() -> None:
    given = spec()
    given["linux"]["namespaces"] = [{"type": "pid", "path": "/proc/0/ns/pid"}]
    with pytest.raises(Unsupported, match="podsandbox"):
        rewrite.in_pod_without_pause(given, "/run/netns/p", {})


def test_the_nodes_processes_need_no_pause() -> None:
    given = spec()
    given["linux"]["namespaces"] = [{"type": "pid", "path": "/proc/0/ns/pid"}, {"type": "mount"}]
    found = rewrite.in_pod_without_pause(given, "/run/netns/p", {}, host_pid=True)
    assert found["linux"]["namespaces"] == [{"type": "mount"}]


def test_a_pods_files_are_mounted_where_nothing_else_is() -> None:
    given = spec()
    given["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid"]})
    files = {"/etc/hosts": "/pod/hosts", "/etc/hostname": "/pod/hostname", "/dev/shm": "/pod/shm"}
    for read_only, mode in ((False, "rw"), (True, "ro")):
        given["root"]["readonly"] = read_only
        mounts = {each["destination"]: each for each in rewrite.with_pod_files(given, files)["mounts"]}
        assert len(mounts) == 3
        assert mounts["/etc/hosts"]["source"] == "/x"
        assert mounts["/etc/hostname"]["source"] == "/pod/hostname" and mode in mounts["/etc/hostname"]["options"]
        assert mounts["/dev/shm"]["source"] == "/pod/shm" and "rw" in mounts["/dev/shm"]["options"]


def test_a_pods_own_shared_memory_stays() -> None:
    given = spec()
    given["mounts"] = [{"destination": "/dev/shm", "type": "bind", "source": "/x", "options": ["rbind"]}]
    assert rewrite.with_pod_files(given, {"/dev/shm": "/pod/shm"})["mounts"] == given["mounts"]


def test_a_disk_is_a_device_of_its_own_in_dev_and_no_more() -> None:
    disk = rewrite.Device(Path("/dev/disk0"), 7, 3, "b", "r", 1000)
    linux = rewrite.for_monitor(
        spec(), Launch(argv=("/m",)), (disk,), rewrite.Files(kernel=Path("/k")), Path("/r"), ""
    )["linux"]
    assert linux["resources"]["devices"][1:] == [{"allow": True, "type": "b", "major": 7, "minor": 3, "access": "r"}]
    (node,) = linux["devices"]
    assert (node["path"], node["type"], node["fileMode"], node["uid"]) == ("/dev/disk0", "b", 0o600, 1000)


def test_what_the_monitor_is_shown_besides() -> None:
    shown = (
        rewrite.Shown(source=Path("/img/a"), target=Path("/unikernel/disk0")),
        rewrite.Shown(source=Path("/img/b"), target=Path("/unikernel/disk1"), writable=True),
    )
    files = rewrite.Files(kernel=Path("/k"), more=shown)
    found = rewrite.for_monitor(spec(), Launch(argv=("/m",)), (), files, Path("/r"), "")
    options = {mount["destination"]: set(mount["options"]) for mount in found["mounts"]}
    harmless = {"nosuid", "nodev", "noexec"}
    assert {"ro", *harmless} <= options["/unikernel/disk0"] and {"rw", *harmless} <= options["/unikernel/disk1"]


@pytest.mark.parametrize(
    ("cpu", "wanted"),
    [
        ({}, 0),
        ({"quota": 150000, "period": 100000, "shares": 2}, 1.5),
        ({"quota": -1, "period": 100000, "shares": 2048}, 2.0),
        ({"quota": None, "shares": 102}, 102 / 1024),
    ],
)
def test_processors(cpu: dict[str, Any], wanted: float) -> None:
    assert rewrite.cpus({"linux": {"resources": {"cpu": cpu}}}) == wanted
    assert rewrite.cpus({}) == 0


def test_readers() -> None:
    given = spec()
    assert rewrite.sandbox_id(given) == "s1"
    assert rewrite.memory_limit(given) == 64 << 20
    assert rewrite.environment(given) == {"A": "1", "B": "x=y"}
    assert rewrite.hostname(given) == "pod"
    assert rewrite.namespace_path(given, "network") == "/run/netns/cni-1"
    assert rewrite.namespace_path(given, "pid") == ""
    assert rewrite.namespace_path(given, "uts") is None
    assert not rewrite.wants_pause(given)
    assert not rewrite.is_sandbox(given)


@pytest.mark.parametrize(
    ("path", "systemd"),
    [("/kubepods/pod1/c1", False), ("kubepods-pod1.slice:cri-containerd:c1", True), ("", False), ("/a:b:c", False)],
)
def test_the_cgroup_drivers_form(path: str, systemd: bool) -> None:
    from shim.oci.engine import uses_systemd

    assert uses_systemd(path) is systemd


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("30", 30), ("0", 0), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("9" * 30, None)],
)
def test_the_pods_grace_period(said: str, seconds: int | None) -> None:
    spec = {"annotations": {"io.kubernetes.pod.terminationGracePeriod": said}}
    assert rewrite.termination_grace(spec) == seconds
    assert rewrite.termination_grace({}) is None
