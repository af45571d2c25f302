"""A blocking CRI client, the kubelet's part of a pod's life: sandboxes, containers, exec, stats.

The messages are generated from cri.proto at first use, into the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import itertools
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from tests.integration import paths

_PROTO = Path(__file__).with_name("cri.proto")
_numbers = itertools.count()


def _generated() -> Any:
    """The cri_pb2 module of the present cri.proto."""
    if "cri_pb2" in sys.modules:
        return sys.modules["cri_pb2"]
    directory = paths.CACHE / "cri" / hashlib.sha256(_PROTO.read_bytes()).hexdigest()[:12]
    directory.mkdir(parents=True, exist_ok=True)
    module = directory / "cri_pb2.py"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            from grpc_tools import protoc  # type: ignore[import-untyped]

            if protoc.main(["protoc", f"-I{_PROTO.parent}", f"--python_out={directory}", _PROTO.name]) != 0:
                raise paths.NotSetUp(f"{_PROTO} does not compile")
    spec = importlib.util.spec_from_file_location("cri_pb2", module)
    assert spec is not None and spec.loader is not None
    sys.modules["cri_pb2"] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@dataclass(frozen=True)
class Output:
    """What ExecSync gave."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass
class Pod:
    """A running sandbox; `address` is what CNI gave it, empty with the host's network."""

    client: Client
    id: str
    name: str
    config: Any
    address: str
    containers: list[str] = field(default_factory=list)

    def create(
        self,
        image: str,
        *,
        name: str = "",
        attempt: int = 0,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        memory: int = 0,
        resources: Mapping[str, Any] | None = None,
        tty: bool = False,
        stdin: bool = False,
        stdin_once: bool = False,
        privileged: bool = False,
        share_processes: bool = False,
        security: Mapping[str, Any] | None = None,
        mounts: Mapping[str, str] | None = None,
        read_only_mounts: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
    ) -> str:
        """CreateContainer; the container's id. `memory` is the limit in bytes, `mounts` host path by container path, as
        `read_only_mounts` is.

        `resources` and `security` are further fields of LinuxContainerResources and LinuxContainerSecurityContext.
        """
        pb = self.client.messages
        name = name or f"c{next(_numbers)}"
        confined = {
            "privileged": privileged,
            # As the kubelet says it, unless the pod shares its processes.
            "namespace_options": {"pid": pb.POD if share_processes else pb.CONTAINER},
        }
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=image),
            command=command,
            args=args,
            labels=labels or {},
            annotations=annotations or {},
            envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in (env or {}).items()],
            mounts=[
                pb.Mount(container_path=inside, host_path=out, readonly=read_only)
                for some, read_only in ((mounts, False), (read_only_mounts, True))
                for inside, out in (some or {}).items()
            ],
            devices=[pb.Device(container_path=path, host_path=path, permissions="rwm") for path in devices],
            log_path=f"{name}/{attempt}.log",  # as the kubelet names it, in a directory that it makes
            tty=tty,
            stdin=stdin,
            stdin_once=stdin_once,
            linux=pb.LinuxContainerConfig(
                resources=pb.LinuxContainerResources(**{"memory_limit_in_bytes": memory, **(resources or {})}),
                security_context=pb.LinuxContainerSecurityContext(**{**confined, **(security or {})}),
            ),
        )
        (Path(self.config.log_directory) / name).mkdir(exist_ok=True)
        request = pb.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        identifier: str = self.client.call("CreateContainer", request).container_id
        self.containers.append(identifier)
        self.client.made.append(identifier)
        return identifier

    def run(self, image: str, **options: Any) -> str:
        """CreateContainer and StartContainer; the container's id."""
        identifier = self.create(image, **options)
        self.client.start(identifier)
        return identifier

    @contextmanager
    def running(self, image: str, **options: Any) -> Iterator[str]:
        """A container for the length of the context, as of `run`; it is removed whatever state it is in."""
        with self.created(image, **options) as identifier:
            self.client.start(identifier)
            yield identifier

    @contextmanager
    def created(self, image: str, **options: Any) -> Iterator[str]:
        """As `running`, but not started."""
        identifier = self.create(image, **options)
        try:
            yield identifier
        finally:
            self.client.remove(identifier)

    def log(self, container: str) -> str:
        """What the container wrote, as the kubelet would show it (CRI's time and stream columns removed)."""
        path = Path(self.client.status(container).log_path)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def stop(self) -> None:
        """StopPodSandbox."""
        self.client.call("StopPodSandbox", self.client.messages.StopPodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self) -> None:
        """StopPodSandbox and RemovePodSandbox: what the kubelet does to a deleted pod."""
        self.stop()
        self.client.call("RemovePodSandbox", self.client.messages.RemovePodSandboxRequest(pod_sandbox_id=self.id))

    def __enter__(self) -> Pod:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.remove()
        except grpc.RpcError:
            # The test's own failure says more than that of cleaning up after it.
            if error is None:
                raise


class Client:
    """CRI over containerd's socket. A failed call raises grpc.RpcError, as containerd answered it."""

    def __init__(self, socket: Path, logs: Path, *, cgroup_parent: str = "", timeout: float = 60.0) -> None:
        self.messages = _generated()
        self.logs = logs
        self.timeout = timeout
        self.cgroup_parent = cgroup_parent
        #: Every sandbox and container this client made: a leak is known by them.
        self.made: list[str] = []
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._methods: dict[str, Callable[..., Any]] = {}
        for service in self.messages.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                answer = getattr(self.messages, method.output_type.name)
                self._methods[method.name] = self._channel.unary_unary(
                    f"/runtime.v1.{service.name}/{method.name}",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=answer.FromString,
                )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, method: str, request: Any = None, *, timeout: float | None = None) -> Any:
        """One call by its CRI name; `request` is a message of `self.messages`, by default an empty one."""
        if request is None:
            request = getattr(self.messages, f"{method}Request")()
        return self._methods[method](request, timeout=timeout or self.timeout)

    def pod(
        self,
        handler: str = "",
        *,
        name: str = "",
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        cgroup_parent: str = "",
        host_network: bool = False,
        ports: Sequence[Mapping[str, Any]] = (),
        dns: Mapping[str, Any] | None = None,
        sysctls: Mapping[str, str] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> Pod:
        """RunPodSandbox with the runtime handler (`runc` if empty). Use it as a context to have it removed.

        `ports` are PortMappings, `dns` is a DNSConfig, `security` further fields of LinuxSandboxSecurityContext.
        """
        pb = self.messages
        name = name or f"pod{next(_numbers)}"
        identity = uuid.uuid4().hex[:12]
        network = pb.NODE if host_network else pb.POD
        shared = {"namespace_options": {"network": network, "pid": pb.CONTAINER, "ipc": pb.POD}}
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=identity, namespace="default"),
            # As the kubelet: a host name is set only where the pod has a network of its own.
            hostname="" if host_network else name,
            log_directory=str(self.logs / f"{name}-{identity}"),
            dns_config=dns,
            port_mappings=[pb.PortMapping(**mapping) for mapping in ports],
            annotations=annotations or {},
            labels=labels or {},
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=cgroup_parent or self.cgroup_parent,
                sysctls=sysctls or {},
                security_context=pb.LinuxSandboxSecurityContext(**{**shared, **(security or {})}),
            ),
        )
        Path(config.log_directory).mkdir(parents=True)
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        identifier = self.call("RunPodSandbox", request).pod_sandbox_id
        self.made.append(identifier)
        return Pod(self, identifier, name, config, self.sandbox(identifier).network.ip)

    def sandbox_info(self, identifier: str) -> dict[str, str]:
        """PodSandboxStatus's info, which it gives when asked to be verbose."""
        request = self.messages.PodSandboxStatusRequest(pod_sandbox_id=identifier, verbose=True)
        return dict(self.call("PodSandboxStatus", request).info)

    def container_stats(self, container: str) -> Any:
        """ContainerStats's stats."""
        return self.call("ContainerStats", self.messages.ContainerStatsRequest(container_id=container)).stats

    def sandbox(self, identifier: str) -> Any:
        """PodSandboxStatus's status."""
        return self.call("PodSandboxStatus", self.messages.PodSandboxStatusRequest(pod_sandbox_id=identifier)).status

    def start(self, container: str) -> None:
        """StartContainer."""
        self.call("StartContainer", self.messages.StartContainerRequest(container_id=container))

    def stop(self, container: str, *, grace: int = 2) -> None:
        """StopContainer: SIGTERM, and SIGKILL after `grace` seconds."""
        self.call("StopContainer", self.messages.StopContainerRequest(container_id=container, timeout=grace))

    def remove(self, container: str) -> None:
        """RemoveContainer."""
        self.call("RemoveContainer", self.messages.RemoveContainerRequest(container_id=container))

    def status(self, container: str) -> Any:
        """ContainerStatus's status."""
        return self.call("ContainerStatus", self.messages.ContainerStatusRequest(container_id=container)).status

    def pid(self, container: str) -> int:
        """The container's first process, a unikernel's monitor, as ContainerStatus tells it."""
        request = self.messages.ContainerStatusRequest(container_id=container, verbose=True)
        return int(json.loads(self.call("ContainerStatus", request).info["info"])["pid"])

    def wait_exit(self, container: str, *, timeout: float = 20.0) -> Any:
        """The status once the container has exited. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.status(container)
            if status.state == self.messages.CONTAINER_EXITED:
                return status
            time.sleep(0.05)
        raise TimeoutError(f"container {container} has not exited after {timeout} s")

    def exec(self, container: str, *command: str, timeout: int = 10) -> Output:
        """ExecSync."""
        answer = self.call(
            "ExecSync",
            self.messages.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout),
            timeout=timeout + 5,
        )
        return Output(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def pods(self, **chosen: Any) -> list[Any]:
        """ListPodSandbox's items; `chosen` are fields of PodSandboxFilter."""
        return list(self.call("ListPodSandbox", self.messages.ListPodSandboxRequest(filter=chosen)).items)

    def containers(self, **chosen: Any) -> list[Any]:
        """ListContainers' items; `chosen` are fields of ContainerFilter."""
        return list(self.call("ListContainers", self.messages.ListContainersRequest(filter=chosen)).containers)

    def remove_everything(self) -> None:
        """Stop and remove every sandbox there is; errors are ignored: it is the end, or a test has failed."""
        for pod in self.pods():
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                try:
                    self.call(method, getattr(self.messages, f"{method}Request")(pod_sandbox_id=pod.id), timeout=10)
                except grpc.RpcError:
                    continue
