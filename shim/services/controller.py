"""containerd's Sandbox Controller: what its CRI plugin calls for each pod; no shim binary, no pause container."""

from __future__ import annotations

import os
import platform
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from shim.config import Config
from shim.errors import InvalidRequest, Unsupported
from shim.rpc.service import Call
from shim.sandbox.description import describe
from shim.sandbox.record import Pod
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.sandboxes import GRACE, Sandboxes
from shim.sandbox.state import SandboxStatus
from shim.services.announce import timestamp
from shim.wire import cri_v1_pb2, types_pb2
from shim.wire import services_sandbox_v1_pb2 as pb

# OCI's names (image-spec, GOARCH) for what uname(2) calls a machine.
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_NODE = cri_v1_pb2.NODE

#: The Task version that containerd is to speak to the address it is given.
_TASK_VERSION = 3


def pod_of(request: Any) -> Pod:
    """What the request says of the pod. Raises InvalidRequest when its options cannot be read."""
    options = cri_v1_pb2.PodSandboxConfig()
    # The URL is the message's name, with or without a host before it; other callers than CRI send none.
    if request.options.type_url.rpartition("/")[2].endswith("PodSandboxConfig"):
        try:
            options.ParseFromString(request.options.value)
        except DecodeError as error:
            raise InvalidRequest(f"the options are no PodSandboxConfig: {error}", subject=request.sandbox_id) from error
    if request.netns_path and not os.path.isabs(request.netns_path):  # noqa: PTH117
        raise InvalidRequest("netns_path must be absolute", subject=request.netns_path)
    return Pod(
        netns=request.netns_path,
        hostname=options.hostname,
        name=options.metadata.name,
        namespace=options.metadata.namespace,
        host_ipc=options.linux.security_context.namespace_options.ipc == _NODE,
    )


class ControllerService:
    """Messages in, messages out."""

    def __init__(self, sandboxes: Sandboxes, config: Config) -> None:
        self._sandboxes = sandboxes
        # ttrpc, because only there one address serves both of containerd's readers: for Task it strips `unix://` (and
        # over gRPC would not), for streams it demands it (core/runtime/v2/shim.go, internal/cri/io/helpers.go).
        self._address = f"ttrpc+unix://{config.ttrpc_socket}"

    def _sandbox(self, request: Any, call: Call) -> Sandbox:
        return self._sandboxes.sandbox(call.namespace, request.sandbox_id)

    async def create(self, request: Any, call: Call) -> Any:
        """Note the pod; nothing is done to its network before a unikernel comes."""
        if request.rootfs:
            raise Unsupported("a sandbox has no root file system of its own here", subject=request.sandbox_id)
        sandbox = self._sandboxes.add(call.namespace, request.sandbox_id, pod_of(request))
        return pb.ControllerCreateResponse(sandbox_id=sandbox.id)

    async def start(self, request: Any, call: Call) -> Any:
        """Say where the sandbox's tasks are served. There is no process, so the pid is 0."""
        sandbox = self._sandbox(request, call)
        sandbox.start()
        return pb.ControllerStartResponse(
            sandbox_id=sandbox.id,
            pid=0,
            created_at=timestamp(sandbox.created_at),
            address=self._address,
            version=_TASK_VERSION,
        )

    async def platform(self, request: Any, call: Call) -> Any:
        """What the node can run."""
        self._sandbox(request, call)
        machine = platform.machine()
        return pb.ControllerPlatformResponse(
            platform=types_pb2.Platform(os="linux", architecture=_ARCHITECTURE.get(machine, machine))
        )

    async def stop(self, request: Any, call: Call) -> Any:
        """End what runs and give the network back, before containerd runs the CNI plugin's DEL."""
        await self._sandboxes.stop(call.namespace, request.sandbox_id, request.timeout_secs or GRACE)
        return pb.ControllerStopResponse()

    async def wait(self, request: Any, call: Call) -> Any:
        """Answer when the sandbox has been stopped."""
        sandbox = self._sandbox(request, call)
        await sandbox.ended.wait()
        assert sandbox.exit is not None
        return pb.ControllerWaitResponse(exit_status=sandbox.exit.status, exited_at=timestamp(sandbox.exit.at))

    async def status(self, request: Any, call: Call) -> Any:
        """The sandbox's state, and where its tasks are served."""
        sandbox = self._sandbox(request, call)
        ready = sandbox.status is SandboxStatus.READY
        info: dict[str, str] = {}
        if request.verbose:
            info = {
                "netns": sandbox.pod.netns if sandbox.pod else "",
                "containers": " ".join(sorted(sandbox.containers)),
                # crictl inspectp shows each value that is JSON as such.
                "unikernel-shim": msgspec.json.encode(describe(sandbox)).decode(),
            }
        return pb.ControllerStatusResponse(
            sandbox_id=sandbox.id,
            pid=0,
            # containerd's CRI plugin compares with these words (runtime.v1.PodSandboxState).
            state="SANDBOX_READY" if ready else "SANDBOX_NOTREADY",
            info=info,
            created_at=timestamp(sandbox.created_at),
            exited_at=timestamp(sandbox.exit.at) if sandbox.exit else None,
            address=self._address,
            version=_TASK_VERSION,
        )

    async def shutdown(self, request: Any, call: Call) -> Any:
        """Remove the sandbox and every trace of it."""
        await self._sandboxes.remove(call.namespace, request.sandbox_id)
        return pb.ControllerShutdownResponse()

    async def metrics(self, request: Any, call: Call) -> Any:
        """A sandbox without a process has no usage of its own; its containers' is in their Stats."""
        self._sandbox(request, call)
        return pb.ControllerMetricsResponse(metrics=types_pb2.Metric(id=request.sandbox_id))

    async def update(self, request: Any, call: Call) -> Any:
        """Accepted: nothing that containerd may update is kept here."""
        self._sandbox(request, call)
        return pb.ControllerUpdateResponse()
