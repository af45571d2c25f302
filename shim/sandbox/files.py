"""What the ordinary containers of a pod without a pause container share as files: resolv.conf, the host's name and
/etc/hosts, and the memory at /dev/shm.

containerd makes them for a pod with a pause container, and leaves them to any other sandboxer (internal/cri/server,
container_create.go).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from shim.errors import NodeFault
from shim.guests.base import Dns
from shim.oci.rewrite import SHARED_MEMORY
from shim.oci.rootfs import Mount, mount_all, unmount_all
from shim.sandbox.record import Pod

_SHM = "shm"
_SHM_BYTES = 64 << 20  # containerd's, and docker's before it (defaultShmSize)


def resolv_conf(dns: Dns) -> str:
    """resolv.conf(5) that says so."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)


def parse_resolv_conf(text: str) -> Dns:
    """What resolv.conf(5) says: the last of its `search` and `domain` lines counts, and all of the others."""
    servers: list[str] = []
    options: list[str] = []
    searches: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        match words[0]:
            case "nameserver" if len(words) > 1:
                servers.append(words[1])
            case "search" | "domain":
                searches = tuple(words[1:])
            case "options":
                options += words[1:]
    return Dns(servers=tuple(servers), searches=searches, options=tuple(options))


def make_names(directory: Path, pod: Pod) -> dict[str, str]:
    """Make under `directory` the files that names are found by; returns, by the path in a container, that on the node;
    blocks.

    Harmless when repeated, also by the next daemon: a container that has them mounted sees the same files. Raises
    NodeFault.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {f"/etc/{name}": os.fspath(directory / name) for name in ("hostname", "hosts", "resolv.conf")}
        _put(directory / "hostname", f"{pod.hostname or socket.gethostname()}\n".encode())
        _put(directory / "hosts", _content(Path("/etc/hosts")))
        names = _content(Path("/etc/resolv.conf")) if pod.dns is None else resolv_conf(pod.dns).encode()
        _put(directory / "resolv.conf", names)
    except OSError as error:
        raise _failed(directory, error) from error
    return found


def make(directory: Path, pod: Pod) -> dict[str, str]:
    """As `make_names`, and the shared memory. `remove` is the inverse."""
    found = make_names(directory, pod)
    try:
        found[SHARED_MEMORY] = SHARED_MEMORY if pod.host_ipc else os.fspath(_shared_memory(directory))
    except OSError as error:
        raise _failed(directory, error) from error
    return found


def _failed(directory: Path, error: OSError) -> NodeFault:
    return NodeFault(f"the pod's files cannot be made: {error}", subject=os.fspath(directory))


def _content(source: Path) -> bytes:
    return source.read_bytes() if source.exists() else b""


def _put(target: Path, content: bytes) -> None:
    """Make the file, whole or not at all; one that is there stays: containers have it mounted, and may have changed
    it."""
    if not target.exists():
        draft = target.with_name(f".{target.name}")
        draft.write_bytes(content)
        draft.chmod(0o644)
        draft.replace(target)


def _shared_memory(directory: Path) -> Path:
    target = directory / _SHM
    target.mkdir(exist_ok=True)
    if not target.is_mount():
        options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={_SHM_BYTES}")
        mount_all((Mount(type="tmpfs", source="shm", options=options),), target)
    return target


def remove(directory: Path) -> None:
    """Unmount what `make` mounted; the files go with their directory. Harmless when there is nothing; blocks."""
    unmount_all(directory / _SHM)
