"""What the courier asks: what to print for containerd's `start`, `delete`, `-info` and `-v`.

The courier carries its argv, environment, working directory and stdin here and prints what comes back, so everything
that differs between containerd's versions is in this file.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.message import DecodeError, Message

from shim import log
from shim.config import Config
from shim.errors import InvalidRequest, NodeFault, ShimError
from shim.rpc.service import Call
from shim.sandbox import identifiers
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.teardown import remove_leftover
from shim.services.destinations import Destinations
from shim.services.versions import Versions
from shim.services.versions import parse as parse_version
from shim.services.wellknown import timestamp
from shim.wire import bootstrap_v1_pb2, courier_pb2, task_v2_pb2, types_pb2

_log = log.get(__name__)

RUNTIME = "io.containerd.unikernel.v2"
_KILLED = 137  # 128 + SIGKILL, what containerd expects of a container that `delete` had to kill


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """The courier's command line, in the flags that containerd 1.6 to 2.3 passes."""

    action: str = ""
    id: str = ""
    namespace: str = ""
    bundle: str = ""
    address: str = ""
    publish_binary: str = ""
    socket: str = ""
    debug_socket: str = ""
    debug: bool = False
    info: bool = False
    version: bool = False


_TEXT = ("id", "namespace", "bundle", "address", "publish-binary", "socket", "debug-socket")
_SWITCHES = {"debug": "debug", "info": "info", "v": "version", "version": "version"}


def parse(argv: list[str]) -> Flags:
    """Read a command line as Go's flag package does: `-name value`, `-name=value`, one dash or two.

    Raises InvalidRequest for an unknown flag, a missing value or more than one action.
    """
    values: dict[str, Any] = {}
    rest = list(argv[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if "action" in values:
                raise InvalidRequest("more than one action", subject=word)
            values["action"] = word
            continue
        name, given, value = word.lstrip("-").partition("=")
        if name in _SWITCHES:
            values[_SWITCHES[name]] = value.lower() not in ("false", "0", "f")
        elif name in _TEXT:
            if not given:
                if not rest:
                    raise InvalidRequest("this flag needs a value", subject=word)
                value = rest.pop(0)
            values[name.replace("-", "_")] = value
        else:
            raise InvalidRequest("unknown flag", subject=word)
    return Flags(**values)


class BootstrapService:
    """Messages in, messages out."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        destinations: Destinations,
        versions: Versions,
        config: Config,
        version: str,
        door: Callable[[str], Awaitable[Path]],
        run_dir: Path,
    ) -> None:
        """`door` gives the socket whose calls are of one namespace, for a containerd that does not say which. `run_dir`
        is the node's."""
        self._sandboxes = sandboxes
        self._destinations = destinations
        self._versions = versions
        self._door = door
        self._config = config
        self._version = version
        self._run_dir = run_dir

    async def run(self, request: courier_pb2.CourierRequest, call: Call) -> courier_pb2.CourierReply:
        """One run of the courier. A failure is its exit code and stderr, which containerd shows to its user."""
        environment = dict(entry.partition("=")[::2] for entry in request.environment)
        try:
            flags = parse(list(request.argv))
            call.span.note(container=flags.id, action=flags.action)
            output = await self._answer(flags, environment, request)
        except ShimError as error:
            _log.warning("courier refused", argv=list(request.argv), error=str(error))
            return courier_pb2.CourierReply(exit_code=1, stderr=f"unikernel-shim: {error}\n".encode())
        return courier_pb2.CourierReply(stdout=output)

    async def _answer(self, flags: Flags, environment: dict[str, str], request: courier_pb2.CourierRequest) -> bytes:
        if flags.version:
            return f"containerd-shim-unikernel-v2:\n  Version:  {self._version}\n".encode()
        if flags.info:
            return self._info()
        namespace = identifiers.check(flags.namespace or environment.get("NAMESPACE", ""), "namespace")
        container = identifiers.check(flags.id, "container id")
        if flags.action == "start":
            return await self._start(namespace, container, flags, environment, request)
        if flags.action == "delete":
            bundle = flags.bundle or request.cwd
            return (await self._delete(namespace, container, bundle)).SerializeToString()
        raise InvalidRequest(
            "unknown action", subject=flags.action or "(none)", remedy="containerd runs start and delete"
        )

    async def _start(
        self,
        namespace: str,
        container: str,
        flags: Flags,
        environment: dict[str, str],
        request: courier_pb2.CourierRequest,
    ) -> bytes:
        parameters = _bootstrap_parameters(request.stdin, namespace, container)
        address = flags.address or environment.get("GRPC_ADDRESS", "")
        events = environment.get("TTRPC_ADDRESS", "")
        if parameters is not None:
            address = parameters.containerd_grpc_address or address
            events = parameters.containerd_ttrpc_address or events
        self._destinations.learn(namespace, container, events or (f"{address}.ttrpc" if address else ""))
        said = parse_version(parameters.containerd_version) if parameters is not None else (0, 0)
        version = said if said > (0, 0) else await self._versions.of(address)
        door = await self._door(namespace) if (0, 0) < version < (1, 7) else self._config.ttrpc_socket
        if parameters is not None:
            return start_result(f"unix://{door}")
        answer = start_answer(version, f"unix://{door}")
        if version < (2, 0):
            await asyncio.to_thread(_leave_address, Path(request.cwd), answer)
        return answer

    async def _delete(self, namespace: str, container: str, bundle: str) -> Message:
        """Remove whatever is left of a container whose shim containerd could not reach."""
        process = await self._sandboxes.destroy_pod(namespace, container)
        self._destinations.forget(namespace, container)
        if process is not None:
            return task_v2_pb2.DeleteResponse(
                pid=process.pid, exit_status=process.exit.status or _KILLED, exited_at=timestamp(process.exit.at)
            )
        record = self._sandboxes.node.journal.records().get(f"{namespace}@{container}")
        if record is not None:
            await remove_leftover(self._sandboxes.node, record)
        if bundle:
            await self._sandboxes.unmount(Path(bundle))
        return task_v2_pb2.DeleteResponse(exit_status=_KILLED, exited_at=timestamp(time.time_ns()))

    def _info(self) -> bytes:
        info = types_pb2.RuntimeInfo(name=RUNTIME, version=types_pb2.RuntimeVersion(version=self._version, revision=""))
        info.annotations["io.unikernel.run-dir"] = os.fspath(self._run_dir)
        return info.SerializeToString()


def _bootstrap_parameters(stdin: bytes, namespace: str, container: str) -> Any | None:
    """The parameters that containerd 2.3 and later write (pkg/shim, Command); older ones put runtime options there.

    Options can be read as parameters, so those count only when they speak of the same container as the flags do.
    """
    if not stdin:
        return None
    parameters = bootstrap_v1_pb2.BootstrapParams()
    try:
        parameters.ParseFromString(stdin)
    except DecodeError:
        return None
    meant = (parameters.namespace, parameters.instance_id) == (namespace, container)
    return parameters if meant else None


def _leave_address(bundle: Path, answer: bytes) -> None:
    """Write the answer into the bundle, where containerd 1.x looks for it when it was restarted (runtime/v2/shim.go,
    loadShim): it takes a task without one for lost. 2.x keeps the answer itself. Raises NodeFault."""
    if not (bundle / "config.json").exists():
        return  # somebody runs the courier by hand
    draft = bundle / ".address"
    try:
        draft.write_bytes(answer)
        draft.replace(bundle / "address")
    except OSError as error:
        raise NodeFault(
            f"the address cannot be left for containerd: {os.strerror(error.errno or 0)}", subject=os.fspath(bundle)
        ) from error


def start_answer(version: tuple[int, int], address: str) -> bytes:
    """What `start` prints for a containerd of `version` (major, minor; (0, 0) when it did not say).

    Before 1.7 the bare address; 1.7 takes JSON with version 2 at most; 2.x takes 3, which its Sandbox API needs. An
    unknown version gets the form that every containerd since 1.7 accepts.
    """
    if (0, 0) < version < (1, 7):
        return address.encode()
    number = 3 if version >= (2, 0) else 2
    return msgspec.json.encode({"version": number, "address": address, "protocol": "ttrpc"})


def start_result(address: str) -> bytes:
    """What `start` prints for a containerd that wrote parameters.

    It tries this message before any other form (core/runtime/v2, parseStartResponse of 2.3.4), and takes JSON only
    where that cannot be read as one.
    """
    return bootstrap_v1_pb2.BootstrapResult(version=3, address=address, protocol="ttrpc").SerializeToString()
