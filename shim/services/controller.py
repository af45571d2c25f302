"""containerd's Sandbox Controller: what its CRI plugin calls for each pod; no shim binary, no pause container."""

from __future__ import annotations

from typing import Any

from shim.config import Config
from shim.rpc.service import Call
from shim.services.pods import Pods
from shim.wire import services_sandbox_v1_pb2 as pb

#: The Task version that containerd is to speak to the address it is given.
_TASK_VERSION = 3


class ControllerService:
    """Messages in, messages out."""

    def __init__(self, pods: Pods, config: Config) -> None:
        self._pods = pods
        # Where the sandboxes' tasks are served. containerd dials a bare path behind the scheme.
        self._endpoint: dict[str, Any] = {"address": f"grpc+{config.grpc_socket}", "version": _TASK_VERSION}

    async def create(self, request: Any, call: Call) -> Any:
        """Note the pod."""
        sandbox = await self._pods.create(request, call)
        return pb.ControllerCreateResponse(sandbox_id=sandbox.id)

    async def start(self, request: Any, call: Call) -> Any:
        """Let containers in."""
        fields = await self._pods.start(request, call)
        return pb.ControllerStartResponse(sandbox_id=request.sandbox_id, **fields, **self._endpoint)

    async def platform(self, request: Any, call: Call) -> Any:
        """What the node can run."""
        return pb.ControllerPlatformResponse(platform=self._pods.platform(request, call))

    async def stop(self, request: Any, call: Call) -> Any:
        """End what runs and give the network back."""
        await self._pods.stop(request, call)
        return pb.ControllerStopResponse()

    async def wait(self, request: Any, call: Call) -> Any:
        """Answer when the sandbox has been stopped."""
        return pb.ControllerWaitResponse(**await self._pods.wait(request, call))

    async def status(self, request: Any, call: Call) -> Any:
        """The sandbox's state, and again where its tasks are served: a containerd that was restarted asks here."""
        return pb.ControllerStatusResponse(**self._pods.status(request, call), **self._endpoint)

    async def shutdown(self, request: Any, call: Call) -> Any:
        """Remove the sandbox and every trace of it."""
        await self._pods.shutdown(request, call)
        return pb.ControllerShutdownResponse()

    async def metrics(self, request: Any, call: Call) -> Any:
        """What the pod's cgroup counts."""
        return pb.ControllerMetricsResponse(metrics=await self._pods.metrics(request, call))

    async def update(self, request: Any, call: Call) -> Any:
        """Accepted: containerd (2.3) tells of the pod's new limits, which the kubelet puts on the pod's cgroup."""
        self._pods.sandbox(request, call)
        return pb.ControllerUpdateResponse()
