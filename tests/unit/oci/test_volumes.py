"""What a configuration's mounts and devices are for: each row of the table in `shim.oci.volumes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shim.errors import InvalidRequest
from shim.oci.volumes import BlockDevice, Role, binds, block_devices

_KUBELET = "/var/lib/kubelet/pods/1-2-3"


def mount(target: str, source: str, *options: str, kind: str = "bind") -> dict[str, Any]:
    return {"destination": target, "source": source, "type": kind, "options": ["rbind", "rprivate", *options]}


@pytest.mark.parametrize(
    ("target", "source", "role"),
    [
        ("/etc/resolv.conf", "/run/containerd/sandboxes/s/resolv.conf", Role.NAMES),
        ("/etc/hosts", f"{_KUBELET}/etc-hosts", Role.HOSTS),
        ("/etc/hostname", "/run/containerd/sandboxes/s/hostname", Role.HOSTNAME),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount",
            f"{_KUBELET}/volumes/kubernetes.io~projected/kube-api-access-x",
            Role.ACCOUNT,
        ),
        ("/data", "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/c1/volumes/abc", Role.IMAGE),
        ("/conf", f"{_KUBELET}/volumes/kubernetes.io~configmap/conf", Role.VOLUME),
        ("/etc/app.ini", f"{_KUBELET}/volume-subpaths/conf/app/0", Role.VOLUME),
        ("/dev/termination-log", f"{_KUBELET}/containers/app/0a1b", None),
        ("/my/last-words", f"{_KUBELET}/containers/app/0a1b", None),
        ("/dev/shm", "/run/containerd/sandboxes/s/shm", None),
        ("/sys/fs/cgroup", "/sys/fs/cgroup", None),
        ("/proc/x", "/proc/x", None),
    ],
)
def test_a_bind_mounts_role(target: str, source: str, role: Role | None) -> None:
    found = binds({"mounts": [mount(target, source, "ro")]})
    assert [(bind.target, bind.source, bind.role) for bind in found] == ([(target, Path(source), role)] if role else [])


def test_what_is_no_bind_mount_is_the_kernels() -> None:
    spec = {"mounts": [{"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}]}
    assert binds(spec) == () == binds({})


@pytest.mark.parametrize(
    ("options", "read_only"),
    [(("ro",), True), (("rw",), False), ((), False), (("rro",), True), (("ro", "rw"), False), (("rw", "rro"), True)],
)
def test_who_may_write(options: tuple[str, ...], read_only: bool) -> None:
    (found,) = binds({"mounts": [mount("/a/../b//c", "/x", *options, kind="")]})
    assert (found.target, found.read_only) == ("/b/c", read_only)


@pytest.mark.parametrize("target", ["/", "", "/..", "."])
def test_nothing_takes_the_roots_place(target: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot take the root's place"):
        binds({"mounts": [mount(target, "/x")]})


def devices(*rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "linux": {
            "devices": [
                {"path": "/dev/xvda", "type": "b", "major": 7, "minor": 3},
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            ],
            "resources": {"devices": [{"allow": False, "access": "rwm"}, *rules]},
        }
    }


@pytest.mark.parametrize(("access", "read_only"), [("rwm", False), ("rm", True)])
def test_a_pods_block_devices(access: str, read_only: bool) -> None:
    rule = {"allow": True, "type": "b", "major": 7, "minor": 3, "access": access}
    # As containerd has it for everybody: any device may be made, and so not opened.
    anybody = {"allow": True, "type": "b", "access": "m"}
    wanted = (BlockDevice(path="/dev/xvda", major=7, minor=3, read_only=read_only),)
    assert block_devices(devices(anybody, rule)) == wanted


def test_a_privileged_containers_devices_are_nobodys_wish() -> None:
    assert block_devices(devices({"allow": True, "access": "rwm"})) == ()
    assert block_devices({}) == ()
