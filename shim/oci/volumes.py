"""What a container's configuration mounts, and the block devices it names, by what each is for. Pure.

mounted at, or from                                     | role
--------------------------------------------------------|---------
/etc/resolv.conf                                        | NAMES
/etc/hosts                                              | HOSTS
/etc/hostname                                           | HOSTNAME
…/secrets/kubernetes.io/serviceaccount                  | ACCOUNT
from the kubelet's directory of the container           | not spoken of: a termination log is for processes
from containerd's copy of an image's VOLUME             | IMAGE
below /dev, /proc, /sys; what is no bind mount          | not spoken of: the kernel's, and the guest has its own
anything else                                           | VOLUME
"""

from __future__ import annotations

import enum
import posixpath
import re
from pathlib import Path
from typing import Any

import msgspec

from shim.errors import InvalidRequest

Spec = dict[str, Any]

# Where a pod's service account is mounted (Kubernetes, plugin/pkg/admission/serviceaccount/admission.go), and the same
# where /var/run is a link.
_ACCOUNTS = ("/var/run/secrets/kubernetes.io/serviceaccount", "/run/secrets/kubernetes.io/serviceaccount")
# The kubelet's termination log of a container (Kubernetes, pkg/kubelet/kubelet_getters.go, getPodContainerDir()), which
# a pod may have at any path.
_LOG = re.compile(r"/pods/[^/]+/containers/[^/]+/[^/]+")
# Where containerd copies what an image has at a VOLUME (internal/cri/server/container_create.go, volumeMounts()).
_IMAGE_VOLUME = re.compile(r"/io\.containerd\.grpc\.v1\.cri/containers/[^/]+/volumes/[^/]+")
_KERNELS = ("/dev", "/proc", "/sys")


class Role(enum.Enum):
    """What a bind mount is for."""

    VOLUME = "volume"
    IMAGE = "image volume"
    ACCOUNT = "service account"
    NAMES = "resolv.conf"
    HOSTS = "hosts"
    HOSTNAME = "hostname"


_FILES = {"/etc/resolv.conf": Role.NAMES, "/etc/hosts": Role.HOSTS, "/etc/hostname": Role.HOSTNAME}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A file or directory of the node, `source`, that the container is to see at the absolute path `target`."""

    target: str
    source: Path
    read_only: bool
    role: Role = Role.VOLUME


class BlockDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A block device of the node by its numbers, and the path at which the container is to have it."""

    path: str
    major: int
    minor: int
    read_only: bool = False


def binds(spec: Spec) -> tuple[Bind, ...]:
    """The bind mounts that a guest may want, in the configuration's order. Raises InvalidRequest for one at `/`."""
    found = []
    for entry in spec.get("mounts") or ():
        options = entry.get("options") or ()
        if entry.get("type") != "bind" and {"bind", "rbind"}.isdisjoint(options):
            continue
        target = posixpath.normpath("/" + str(entry.get("destination") or "").lstrip("/"))
        if target == "/":
            raise InvalidRequest("a volume cannot take the root's place", subject="/", remedy="mount it below")
        source = str(entry.get("source") or "")
        if _is_below(target, _KERNELS) or _LOG.search(source):
            continue
        role = _FILES.get(target, Role.VOLUME)
        if target in _ACCOUNTS:
            role = Role.ACCOUNT
        elif _IMAGE_VOLUME.search(source):
            role = Role.IMAGE
        # The last that is said counts (runtime-spec, config.md, mounts; rro is ro for what is mounted below, too).
        modes = [option for option in options if option in ("ro", "rro", "rw")]
        read_only = bool(modes) and modes[-1] != "rw"
        found.append(Bind(target=target, source=Path(source), read_only=read_only, role=role))
    return tuple(found)


def _is_below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def block_devices(spec: Spec) -> tuple[BlockDevice, ...]:
    """The block devices that the pod asks for, in the configuration's order.

    None of a privileged container's: its list is the whole node's, and says nothing of what is meant.
    """
    linux = spec.get("linux") or {}
    rules = [rule for rule in (linux.get("resources") or {}).get("devices") or () if rule.get("allow")]
    if any((rule.get("type") or "a", rule.get("major"), rule.get("minor")) == ("a", None, None) for rule in rules):
        return ()
    found = []
    for device in linux.get("devices") or ():
        if device.get("type") == "b":
            major, minor = int(device.get("major") or 0), int(device.get("minor") or 0)
            access = "".join(
                str(rule.get("access") or "")
                for rule in rules
                if (rule.get("type"), rule.get("major"), rule.get("minor")) == ("b", major, minor)
            )
            path = posixpath.normpath(str(device.get("path") or ""))
            found.append(BlockDevice(path=path, major=major, minor=minor, read_only="w" not in access))
    return tuple(found)
