"""Turning one OCI runtime configuration into another: pure functions on config.json's contents.

A unikernel's configuration is rewritten so that its process is its monitor, confined: no capabilities, a read-only
root with just what the monitor reads, only the devices it opens, an empty network namespace. Whatever the pod
asked for about cgroups, limits, users, seccomp and labels stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from shim.errors import Unsupported
from shim.monitors.base import Launch

Spec = dict[str, Any]

#: Where a container looks for the memory that it shares by name (shm_open(3)).
SHARED_MEMORY = "/dev/shm"  # noqa: S108
#: Where the monitor sees the kernel and the initrd.
KERNEL = Path("/unikernel/kernel")
INITRD = Path("/unikernel/initrd")

_SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
_SANDBOX_NAME = "io.kubernetes.cri.sandbox-name"
_SANDBOX_NAMESPACE = "io.kubernetes.cri.sandbox-namespace"
_CONTAINER_NAME = "io.kubernetes.cri.container-name"
_LOG_DIRECTORY = "io.kubernetes.cri.sandbox-log-directory"
# What the kubelet says of a pod to each of its containers (Kubernetes, pkg/kubelet/kuberuntime/labels.go).
_GRACE = "io.kubernetes.pod.terminationGracePeriod"
_CONTAINER_TYPE = "io.kubernetes.cri.container-type"
_SECONDS = re.compile(r"[0-9]{1,9}")
_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_HARMLESS = ("nosuid", "nodev", "rprivate")
# What of /proc tells about the node or changes it: the defaults of containerd (pkg/oci/spec.go). root may write to
# /proc/sys without any capability (kernel, net and fs sysctls ask for the owner alone).
_MASKED_PATHS = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
_READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Device(msgspec.Struct, frozen=True):
    """A device of the node: `path` is where the monitor has it, `kind` c or b as mknod(1) has it, `access` r or rw;
    only its `owner` and root can open a block device."""

    path: Path
    major: int
    minor: int
    kind: Literal["b", "c"] = "c"
    access: Literal["r", "rw"] = "rw"
    owner: int = 0


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory of the node at `source`, that the monitor has at `target`."""

    source: Path
    target: Path
    writable: bool = False


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor is shown beside its own program: kernel and initrd as paths on the node, and the rest."""

    kernel: Path
    initrd: Path | None = None
    more: tuple[Shown, ...] = ()


def annotations_of(spec: Spec) -> dict[str, str]:
    """The configuration's annotations."""
    return dict(spec.get("annotations") or {})


def sandbox_id(spec: Spec) -> str:
    """The pod's sandbox id as containerd's CRI plugin notes it, or "" outside a pod."""
    return annotations_of(spec).get(_SANDBOX_ID, "")


def container_name(spec: Spec) -> str:
    """What the pod calls the container, the same in each of its lives, or "" outside a pod."""
    return annotations_of(spec).get(_CONTAINER_NAME, "")


def pod_name(spec: Spec) -> tuple[str, str]:
    """Kubernetes' namespace and the pod's name in it, as containerd's CRI plugin notes them, "" outside a pod."""
    found = annotations_of(spec)
    return found.get(_SANDBOX_NAMESPACE, ""), found.get(_SANDBOX_NAME, "")


def log_directory(spec: Spec) -> str:
    """Where the kubelet wants the logs of a pod's containers, as containerd's CRI plugin notes it on a pause container;
    "" on any other."""
    return annotations_of(spec).get(_LOG_DIRECTORY, "")


def termination_grace(spec: Spec) -> int | None:
    """The seconds between a request to end and SIGKILL, as the pod asks for them; None where that is not known.

    containerd shows it to a runtime whose `container_annotations` name it.
    """
    said = annotations_of(spec).get(_GRACE, "")
    return int(said) if _SECONDS.fullmatch(said) else None


def is_sandbox(spec: Spec) -> bool:
    """Whether this is a pod's pause container."""
    return annotations_of(spec).get(_CONTAINER_TYPE) == "sandbox"


def cgroups_path(spec: Spec) -> str:
    """The cgroup asked for, in the cgroupfs or the systemd driver's form."""
    return str((spec.get("linux") or {}).get("cgroupsPath") or "")


def memory_limit(spec: Spec) -> int:
    """The memory limit in bytes, 0 for none."""
    limit = ((spec.get("linux") or {}).get("resources") or {}).get("memory", {}).get("limit")
    return int(limit) if limit and int(limit) > 0 else 0


def cpus(spec: Spec) -> float:
    """The processors that the container may use: its quota, else what its shares stand for, else 0.

    The kubelet turns a request into shares of 1024 a processor (Kubernetes, pkg/kubelet/cm/helpers_linux.go).
    """
    cpu = ((spec.get("linux") or {}).get("resources") or {}).get("cpu") or {}
    quota, period, shares = (int(cpu.get(name) or 0) for name in ("quota", "period", "shares"))
    if quota > 0 and period > 0:
        return quota / period
    return shares / 1024


def is_root_read_only(spec: Spec) -> bool:
    """Whether the container may not write to its root file system."""
    return bool((spec.get("root") or {}).get("readonly"))


def namespace_path(spec: Spec, kind: str) -> str | None:
    """The path of a namespace to join; "" for a new one; None when the container stays in the node's."""
    for entry in (spec.get("linux") or {}).get("namespaces") or []:
        if entry.get("type") == kind:
            return str(entry.get("path") or "")
    return None


def hostname(spec: Spec) -> str:
    """The host name asked for, "" for none."""
    return str(spec.get("hostname") or "")


def working_directory(spec: Spec) -> str:
    """Where the process starts, "" where that is not said."""
    return str(spec["process"].get("cwd") or "")


def environment(spec: Spec) -> dict[str, str]:
    """The process's environment by name."""
    return {name: value for name, _, value in (str(entry).partition("=") for entry in spec["process"].get("env") or [])}


def with_root(spec: Spec, root: Path) -> Spec:
    """The configuration with its root file system named by an absolute path, for a bundle that is elsewhere."""
    return {**spec, "root": {**(spec.get("root") or {}), "path": str(root)}}


def is_missing_pause(path: str) -> bool:
    """Whether a namespace's path is that of a pause container that does not exist.

    containerd writes `/proc/PID/ns/KIND` with the sandbox's pid, and a sandbox without a process reports 0.
    """
    return path.startswith("/proc/0/ns/")


def wants_pause(spec: Spec) -> bool:
    """Whether any namespace of the configuration is a missing pause container's."""
    return any(
        is_missing_pause(str(entry.get("path") or "")) for entry in (spec.get("linux") or {}).get("namespaces") or []
    )


def for_monitor(spec: Spec, launch: Launch, devices: tuple[Device, ...], files: Files, root: Path, netns: str) -> Spec:
    """The configuration that runs `launch` in place of the container's own process.

    `root` is the monitor's own root directory; `netns` is the pod's namespace, used only where the monitor must
    attach its taps by name, or ask the kernel about them.
    """
    process = dict(spec.get("process") or {})
    process |= {
        "args": list(launch.argv),
        "cwd": "/",
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "capabilities": {name: [] for name in _CAPABILITY_SETS},
        "noNewPrivileges": True,
    }
    linux = dict(spec.get("linux") or {})
    resources = dict(linux.get("resources") or {})
    # A privileged container's own list allows every device of the node, and a device of the pod's is not the guest's.
    resources["devices"] = [
        {"allow": False, "access": "rwm"},
        *({"allow": True, "type": d.kind, "major": d.major, "minor": d.minor, "access": d.access} for d in devices),
    ]
    linux |= {
        "resources": resources,
        "devices": [
            {
                "path": str(d.path),
                "type": d.kind,
                "major": d.major,
                "minor": d.minor,
                "fileMode": 0o666 if d.kind == "c" else 0o600,
                "uid": d.owner,
                "gid": 0,
            }
            for d in devices
        ],
        "namespaces": _monitor_namespaces(
            linux.get("namespaces") or [], netns if launch.by_name or launch.in_pod else ""
        ),
        "maskedPaths": _union(linux.get("maskedPaths"), _MASKED_PATHS),
        "readonlyPaths": _union(linux.get("readonlyPaths"), _READ_ONLY_PATHS),
    }
    # A monitor neither mounts nor shares anything; the image's own propagation wishes do not concern it.
    linux.pop("rootfsPropagation", None)
    return {
        **{key: value for key, value in spec.items() if key != "hooks"},
        "process": process,
        "root": {"path": str(root), "readonly": True},
        "mounts": _monitor_mounts(launch, files, terminal=bool(process.get("terminal"))),
        "linux": linux,
    }


def _monitor_namespaces(wanted: list[dict[str, Any]], netns: str) -> list[dict[str, Any]]:
    kept = [entry for entry in wanted if entry.get("type") in ("user", "cgroup")]
    network: dict[str, Any] = {"type": "network", "path": netns} if netns else {"type": "network"}
    return [*({"type": kind} for kind in ("mount", "pid", "ipc", "uts")), network, *kept]


def _union(asked: list[str] | None, always: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys([*always, *(asked or [])]))


def _monitor_mounts(launch: Launch, files: Files, *, terminal: bool) -> list[dict[str, Any]]:
    def bind(source: Path, target: Path, *options: str, writable: bool = False) -> dict[str, Any]:
        return {
            "destination": str(target),
            "type": "bind",
            "source": str(source),
            "options": ["bind", "rw" if writable else "ro", *_HARMLESS, *options],
        }

    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"],
        },
    ]
    if terminal:
        # The engine opens the pair of the console in the container's own devpts.
        options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        mounts.append({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options})
    mounts += [bind(share, share) for share in launch.shares]
    mounts.append(bind(files.kernel, KERNEL, "noexec"))
    if files.initrd is not None:
        mounts.append(bind(files.initrd, INITRD, "noexec"))
    mounts += [bind(shown.source, shown.target, "noexec", writable=shown.writable) for shown in files.more]
    return mounts


def in_pod_without_pause(spec: Spec, netns: str, pinned: Mapping[str, str], *, host_pid: bool = False) -> Spec:
    """An ordinary container's configuration for a pod that has no pause container.

    Where containerd meant the pause container's, the pod's own are put: `netns` ("" for the node's), and the pinned
    ones by kind (a kind that is not pinned is the node's). Raises Unsupported for a process namespace of the pod's own
    (not `host_pid`), which lives and dies with a process of its own.
    """
    namespaces: list[dict[str, Any]] = []
    for entry in spec["linux"]["namespaces"]:
        kind = entry.get("type")
        if not is_missing_pause(str(entry.get("path") or "")):
            namespaces.append(entry)
        elif kind == "pid" and host_pid:
            continue
        elif kind == "pid":
            raise Unsupported(
                "a shared process namespace needs a pause container",
                subject="shareProcessNamespace",
                remedy="use a runtime handler whose sandboxer is podsandbox",
            )
        elif kind == "network":
            if netns:
                namespaces.append({"type": "network", "path": netns})
        elif kind in pinned:
            namespaces.append({"type": kind, "path": pinned[kind]})
    return {**spec, "linux": {**spec["linux"], "namespaces": namespaces}}


def with_pod_files(spec: Spec, files: Mapping[str, str]) -> Spec:
    """An ordinary container's configuration with its pod's files in it: `files` maps a path in the container to one on
    the node. Where the pod mounts something of its own there, that stays; a /dev/shm of the container's alone goes."""
    mounts = [entry for entry in spec.get("mounts") or [] if _destination(entry) != SHARED_MEMORY or _is_bind(entry)]
    taken = {_destination(entry) for entry in mounts}
    read_only = is_root_read_only(spec)
    for inside, outside in files.items():
        if inside not in taken:
            mode = "ro" if read_only and inside != SHARED_MEMORY else "rw"
            options = ["rbind", "rprivate", mode]
            mounts.append({"destination": inside, "type": "bind", "source": outside, "options": options})
    return {**spec, "mounts": mounts}


def _destination(mount: dict[str, Any]) -> str:
    return str(mount.get("destination") or "")


def _is_bind(mount: dict[str, Any]) -> bool:
    return not {"bind", "rbind"}.isdisjoint(mount.get("options") or ())
