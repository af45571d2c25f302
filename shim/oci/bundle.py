"""Bundles: containerd's, which is read, and the one written for a monitor, which is ours to remove."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import msgspec

from shim.errors import InvalidRequest, NodeFault
from shim.monitors.base import Launch
from shim.oci.rewrite import Device, Spec

_CONFIG = "config.json"
# On a merged-/usr node these are links into /usr; the dynamic loader's path goes through them (hier(7)).
_USR_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def read_spec(bundle: Path) -> Spec:
    """The bundle's config.json. Raises InvalidRequest where there is none or it is not an object."""
    path = bundle / _CONFIG
    try:
        spec = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise InvalidRequest("the bundle holds no config.json", subject=os.fspath(bundle)) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the bundle's configuration is not JSON: {error}", subject=os.fspath(path)) from error
    if not isinstance(spec, dict) or not isinstance(spec.get("process"), dict):
        raise InvalidRequest("the bundle's configuration has no process", subject=os.fspath(path))
    return spec


def root_of(bundle: Path, spec: Spec) -> Path:
    """The root file system's directory on the node."""
    root = Path(str((spec.get("root") or {}).get("path") or "rootfs"))
    return root if root.is_absolute() else bundle / root


def write_spec(directory: Path, spec: Spec) -> None:
    """Write config.json into `directory`, which is made (0700) if need be."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _CONFIG).write_bytes(msgspec.json.encode(spec))


def make_monitor_root(root: Path, launch: Launch) -> None:
    """Make the directory tree a monitor sees: the files made for it, and what the engine mounts `launch.shares` into.

    The tree is the monitor's alone and mounted read-only. `remove` is the inverse.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    shared = {os.fspath(share) for share in launch.shares}
    for name in _USR_LINKS:
        node = Path("/") / name
        if node.is_symlink() and f"/{name}" not in shared and not (root / name).is_symlink():
            (root / name).symlink_to(node.readlink())
    for path, content in launch.files.items():
        inside = root / path.relative_to("/")
        inside.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        inside.write_bytes(content)
        inside.chmod(0o444)  # whatever the user that the monitor runs as


def remove(directory: Path) -> None:
    """Remove a bundle of ours; harmless when it is gone."""
    shutil.rmtree(directory, ignore_errors=True)


def device(path: Path) -> Device:
    """The numbers of one of the node's devices. Raises NodeFault where it is missing or is no character device."""
    try:
        found = path.stat()
    except OSError as error:
        raise NodeFault(
            f"the monitor needs this device: {os.strerror(error.errno or 0)}", subject=os.fspath(path)
        ) from error
    if not stat.S_ISCHR(found.st_mode):
        raise NodeFault("the monitor needs a character device here", subject=os.fspath(path))
    return Device(path, os.major(found.st_rdev), os.minor(found.st_rdev))
