"""containerd's Sandbox service of a shim: what it calls for each pod where `sandboxer = "shim"`.

containerd runs the courier for the sandbox, then speaks this to the address it was given, and Task v3 for the pod's
containers. When that connection drops, or Shutdown has answered, it runs the courier's `delete` for the sandbox.
"""

from __future__ import annotations

from typing import Any

from shim.rpc.service import Call
from shim.services.pods import Pods
from shim.wire import runtime_sandbox_v1_pb2 as pb


class SandboxService:
    """Messages in, messages out."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    async def create_sandbox(self, request: Any, call: Call) -> Any:
        """Note the pod."""
        await self._pods.create(request, call, bundle=request.bundle_path)
        return pb.CreateSandboxResponse()

    async def start_sandbox(self, request: Any, call: Call) -> Any:
        """Let containers in."""
        return pb.StartSandboxResponse(**await self._pods.start(request, call))

    async def platform(self, request: Any, call: Call) -> Any:
        """What the node can run."""
        return pb.PlatformResponse(platform=self._pods.platform(request, call))

    async def stop_sandbox(self, request: Any, call: Call) -> Any:
        """End what runs and give the network back."""
        await self._pods.stop(request, call)
        return pb.StopSandboxResponse()

    async def wait_sandbox(self, request: Any, call: Call) -> Any:
        """Answer when the sandbox has been stopped."""
        return pb.WaitSandboxResponse(**await self._pods.wait(request, call))

    async def sandbox_status(self, request: Any, call: Call) -> Any:
        """The sandbox's state."""
        return pb.SandboxStatusResponse(**self._pods.status(request, call))

    async def ping_sandbox(self, request: Any, call: Call) -> Any:
        """Whether the sandbox is known."""
        self._pods.sandbox(request, call)
        return pb.PingResponse()

    async def shutdown_sandbox(self, request: Any, call: Call) -> Any:
        """Remove the sandbox and every trace of it; the service stays, for the others."""
        await self._pods.shutdown(request, call)
        return pb.ShutdownSandboxResponse()

    async def sandbox_metrics(self, request: Any, call: Call) -> Any:
        """What the pod's cgroup counts."""
        return pb.SandboxMetricsResponse(metrics=await self._pods.metrics(request, call))
