"""A pod's life, for both of containerd's sandbox services.

containerd asks the same things of a sandbox plugin (`controller`) and of a sandbox's shim (`sandbox`), in messages
whose fields have the same names. What is done and answered is here; what differs is there.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from shim import stats
from shim.errors import InvalidRequest, NotFound, Unsupported
from shim.guests.base import Dns
from shim.oci.cgroup import parent_path
from shim.rpc.service import Call
from shim.sandbox import sysctls
from shim.sandbox.description import describe
from shim.sandbox.record import Pod
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.sandboxes import GRACE, Sandboxes
from shim.sandbox.state import SandboxStatus
from shim.services import metrics
from shim.services.destinations import Destinations
from shim.services.wellknown import packed, timestamp
from shim.wire import cri_v1_pb2, types_pb2

# OCI's names (image-spec, GOARCH) for what uname(2) calls a machine.
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def pod_of(request: Any, *, bundle: str = "", destination: str = "") -> Pod:
    """What a request to create a sandbox says of the pod.

    Raises InvalidRequest when its options cannot be read, or have a sysctl that is not the pod's.
    """
    options = cri_v1_pb2.PodSandboxConfig()
    # The URL is the message's name, with or without a host before it; other callers than CRI send none.
    if request.options.type_url.rpartition("/")[2].endswith("PodSandboxConfig"):
        try:
            options.ParseFromString(request.options.value)
        except DecodeError as error:
            raise InvalidRequest(f"the options are no PodSandboxConfig: {error}", subject=request.sandbox_id) from error
    if request.netns_path and not os.path.isabs(request.netns_path):  # noqa: PTH117
        raise InvalidRequest("netns_path must be absolute", subject=request.netns_path)
    dns, shared = options.dns_config, options.linux.security_context.namespace_options
    pod = Pod(
        netns=request.netns_path,
        hostname=options.hostname,
        name=options.metadata.name,
        namespace=options.metadata.namespace,
        dns=Dns(servers=tuple(dns.servers), searches=tuple(dns.searches), options=tuple(dns.options))
        if options.HasField("dns_config")
        else None,
        host_pid=shared.pid == cri_v1_pb2.NODE,
        host_ipc=shared.ipc == cri_v1_pb2.NODE,
        sysctls=dict(options.linux.sysctls),
        cgroup_parent=options.linux.cgroup_parent,
        bundle=bundle,
        destination=destination,
        log_directory=options.log_directory,
    )
    sysctls.check(pod)
    return pod


class Pods:
    """What the services do, on messages of either. Every method raises NotFound where there is no such sandbox."""

    def __init__(self, sandboxes: Sandboxes, destinations: Destinations) -> None:
        self._sandboxes = sandboxes
        self._destinations = destinations

    def sandbox(self, request: Any, call: Call) -> Sandbox:
        """The sandbox that is meant."""
        _note(request, call)
        return self._sandboxes.sandbox(call.namespace, request.sandbox_id)

    async def create(self, request: Any, call: Call, *, bundle: str = "") -> Sandbox:
        """Note the pod; but for its sysctls, nothing is done to its network before a unikernel comes.

        `bundle` is the directory that containerd made for the sandbox's shim. Raises AlreadyExists, InvalidRequest,
        Unsupported, and NetworkFault where sysctls are asked for and there is no such namespace.
        """
        _note(request, call)
        if request.rootfs:
            raise Unsupported("a sandbox has no root file system of its own here", subject=request.sandbox_id)
        destination = self._destinations.of(call.namespace, request.sandbox_id)
        pod = pod_of(request, bundle=bundle, destination=destination)
        # Now, as containerd does not shut down a sandbox whose Start fails.
        await sysctls.set_network(pod)
        return self._sandboxes.add(call.namespace, request.sandbox_id, pod)

    async def start(self, request: Any, call: Call) -> dict[str, Any]:
        """Let containers in; the answer's fields. There is no process, so the pid is 0."""
        sandbox = self.sandbox(request, call)
        sandbox.start()
        return {"pid": 0, "created_at": timestamp(sandbox.created_at)}

    def platform(self, request: Any, call: Call) -> types_pb2.Platform:
        """What the node can run."""
        self.sandbox(request, call)
        machine = platform.machine()
        return types_pb2.Platform(os="linux", architecture=_ARCHITECTURE.get(machine, machine))

    async def stop(self, request: Any, call: Call) -> None:
        """End what runs and give the network back, before containerd runs the CNI plugin's DEL."""
        _note(request, call)
        await self._sandboxes.stop(call.namespace, request.sandbox_id, request.timeout_secs or GRACE)

    async def wait(self, request: Any, call: Call) -> dict[str, Any]:
        """The answer's fields, once the sandbox has been stopped."""
        sandbox = self.sandbox(request, call)
        await sandbox.ended.wait()
        assert sandbox.exit is not None
        return {"exit_status": sandbox.exit.status, "exited_at": timestamp(sandbox.exit.at)}

    def status(self, request: Any, call: Call) -> dict[str, Any]:
        """The answer's fields."""
        sandbox = self.sandbox(request, call)
        ready = sandbox.status is SandboxStatus.READY
        return {
            "sandbox_id": sandbox.id,
            "pid": 0,
            # containerd's CRI plugin compares with these words (runtime.v1.PodSandboxState).
            "state": "SANDBOX_READY" if ready else "SANDBOX_NOTREADY",
            "info": _info(sandbox) if request.verbose else {},
            "created_at": timestamp(sandbox.created_at),
            "exited_at": timestamp(sandbox.exit.at) if sandbox.exit else None,
        }

    async def shutdown(self, request: Any, call: Call) -> None:
        """Remove the sandbox and every trace of it."""
        _note(request, call)
        await self._sandboxes.remove(call.namespace, request.sandbox_id)
        self._destinations.forget(call.namespace, request.sandbox_id)

    async def metrics(self, request: Any, call: Call) -> types_pb2.Metric:
        """What the pod's cgroup counts, in the message of a container's Stats. Raises NotFound where it has none."""
        parent = self.sandbox(request, call).cgroup_parent
        if not parent:
            raise NotFound("the pod has no cgroup of its own", subject=request.sandbox_id)
        usage = await asyncio.to_thread(_usage, parent)
        return types_pb2.Metric(
            timestamp=timestamp(time.time_ns()), id=request.sandbox_id, data=packed(metrics.message(usage))
        )


def _note(request: Any, call: Call) -> None:
    call.span.note(sandbox=request.sandbox_id)


def _usage(parent: str) -> stats.CgroupStats:
    return stats.read(stats.cgroup_at(parent_path(parent)))


def _info(sandbox: Sandbox) -> dict[str, str]:
    return {
        "netns": sandbox.pod.netns if sandbox.pod else "",
        "containers": " ".join(sorted(sandbox.containers)),
        # crictl inspectp shows each value that is JSON as such.
        "unikernel-shim": msgspec.json.encode(describe(sandbox)).decode(),
    }
