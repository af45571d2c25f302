"""A pod's sysctls, where no engine sets them on a pause container: which may be set, and setting them.

Only what belongs to a namespace of the pod's own may be: anything else is the whole node's. The lists are those of the
kernel's namespaces, ipc_namespaces(7), network_namespaces(7), uts_namespaces(7), as runc goes by them
(libcontainer/configs/validate).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from shim.errors import InvalidRequest, NetworkFault
from shim.network.kernel.namespace import visit
from shim.sandbox.record import Pod

_IPC = {"msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"}

#: What containerd 2.x gives every pause container (enable_unprivileged_ports and enable_unprivileged_icmp, on by
#: default), so that an ordinary container finds the same in each kind of pod. What the pod says comes first.
_USUAL = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def parts(name: str) -> tuple[str, ...]:
    """A sysctl's path below /proc/sys. Dots or slashes separate, whichever comes first; the others are swapped then
    (sysctl.d(5)): net.ipv4.conf.eth0/1.forwarding and net/ipv4/conf/eth0.1/forwarding are one.

    Raises InvalidRequest for what is no such name.
    """
    separator = next((character for character in name if character in "./"), ".")
    words = tuple(word.replace("/", ".") if separator == "." else word for word in name.split(separator))
    if any(word in ("", ".", "..") for word in words):
        raise InvalidRequest("that is no sysctl's name", subject=repr(name))
    return words


def kind_of(name: str) -> str:
    """The kind of namespace that a sysctl belongs to: "network", "ipc", "uts", or "" for the whole node's.

    Raises InvalidRequest for what is no sysctl's name.
    """
    words = parts(name)
    if words[0] == "net" and len(words) > 1:
        return "network"
    if words[:2] == ("fs", "mqueue") or (words[0] == "kernel" and words[1:] and words[1] in _IPC and len(words) == 2):
        return "ipc"
    return "uts" if words == ("kernel", "domainname") else ""


def check(pod: Pod) -> None:
    """Raise InvalidRequest for a sysctl that is not the pod's to set."""
    shared = {"network": not pod.netns, "uts": not pod.netns, "ipc": pod.host_ipc}
    for name in pod.sysctls:
        kind = kind_of(name)
        if not kind:
            raise InvalidRequest(
                "this sysctl belongs to no namespace of a pod's: it is the whole node's",
                subject=name,
                remedy="set it on the node, or drop it from the pod's securityContext.sysctls",
            )
        if shared[kind]:
            raise InvalidRequest(f"the pod shares the node's {kind} namespace, whose sysctl this is", subject=name)


def of_kinds(pod: Pod, *kinds: str) -> dict[str, str]:
    """Those of the pod's that belong to namespaces of these kinds."""
    return {name: value for name, value in pod.sysctls.items() if kind_of(name) in kinds}


async def set_network(pod: Pod) -> None:
    """Set those of the pod's network namespace. Raises InvalidRequest for one that cannot be, NetworkFault."""
    if not pod.netns:
        return
    own = of_kinds(pod, "network")
    said = {parts(name) for name in own}
    usual = {name: value for name, value in _USUAL.items() if parts(name) not in said}

    def work() -> None:
        for name, value in usual.items():
            with contextlib.suppress(InvalidRequest):
                write({name: value})
        write(own)

    try:
        await visit(Path(pod.netns), work)
    except NetworkFault:
        # Nobody asked for the usual ones, and whoever needs the namespace will say what is wrong with it.
        if own:
            raise


def write(settings: Mapping[str, str]) -> None:
    """Set them in the calling thread's namespaces. Raises InvalidRequest that names the first that cannot be."""
    for name, value in settings.items():
        path = Path("/proc/sys", *parts(name))
        try:
            # Not created where it is missing: /proc has no files but the kernel's.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            if error.errno == errno.ENOENT:
                why = "this kernel has no such setting for a pod"
            raise InvalidRequest(f"the sysctl cannot be set to {value!r}: {why}", subject=name) from error
