"""The contract's fixed points: names, numbers and types that others' programs rely on.

Run as a program it writes `contract.lock`, all of the contract as it now is.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from shim import wire
from shim.wire import (
    bootstrap_v1_pb2,
    cgroups_v1_pb2,
    cgroups_v2_pb2,
    courier_pb2,
    cri_v1_pb2,
    events_pb2,
    inspection_pb2,
    rpc_status_pb2,
    runc_options_pb2,
    runtime_sandbox_v1_pb2,
    runtimeoptions_v1_pb2,
    services_events_ttrpc_v1_pb2,
    services_events_v1_pb2,
    services_sandbox_v1_pb2,
    services_streaming_v1_pb2,
    services_version_v1_pb2,
    task_v2_pb2,
    task_v3_pb2,
    ttrpc_pb2,
    types_pb2,
    types_task_pb2,
    types_transfer_pb2,
)

_TASK = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
]
_CONTROLLER = ["Create", "Start", "Platform", "Stop", "Wait", "Status", "Shutdown", "Metrics", "Update"]
_SANDBOX = [
    "CreateSandbox",
    "StartSandbox",
    "Platform",
    "StopSandbox",
    "WaitSandbox",
    "SandboxStatus",
    "PingSandbox",
    "ShutdownSandbox",
    "SandboxMetrics",
]

_SERVICES = {
    "containerd.task.v2.Task": (task_v2_pb2, _TASK),
    "containerd.task.v3.Task": (task_v3_pb2, _TASK),
    "containerd.services.sandbox.v1.Controller": (services_sandbox_v1_pb2, _CONTROLLER),
    "containerd.runtime.sandbox.v1.Sandbox": (runtime_sandbox_v1_pb2, _SANDBOX),
    "containerd.services.events.v1.Events": (services_events_v1_pb2, ["Forward"]),
    "containerd.services.events.ttrpc.v1.Events": (services_events_ttrpc_v1_pb2, ["Forward"]),
    "containerd.services.streaming.v1.Streaming": (services_streaming_v1_pb2, ["Stream"]),
    "containerd.services.version.v1.Version": (services_version_v1_pb2, ["Version"]),
    "io.unikernel.shim.v1.Bootstrap": (courier_pb2, ["Run"]),
    "io.unikernel.shim.v1.Inspection": (
        inspection_pb2,
        ["About", "List", "Inspect", "Check", "Events", "Logs", "Console", "Topology"],
    ),
}

# number: (name, type), read off containerd's and its peers' own files.
_U32, _STR, _BYTES, _BOOL, _MSG = (
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_MESSAGE,
)
_FIELDS: dict[str, tuple[type[Message], dict[int, tuple[str, int]]]] = {
    "containerd.task.v3.CreateTaskRequest": (
        task_v3_pb2.CreateTaskRequest,
        {
            1: ("id", _STR),
            2: ("bundle", _STR),
            3: ("rootfs", _MSG),
            4: ("terminal", _BOOL),
            5: ("stdin", _STR),
            6: ("stdout", _STR),
            7: ("stderr", _STR),
            8: ("checkpoint", _STR),
            9: ("parent_checkpoint", _STR),
            10: ("options", _MSG),
        },
    ),
    "containerd.task.v2.KillRequest": (
        task_v2_pb2.KillRequest,
        {1: ("id", _STR), 2: ("exec_id", _STR), 3: ("signal", _U32), 4: ("all", _BOOL)},
    ),
    "containerd.types.Mount": (
        types_pb2.Mount,
        {1: ("type", _STR), 2: ("source", _STR), 3: ("target", _STR), 4: ("options", _STR)},
    ),
    "containerd.types.Envelope": (
        types_pb2.Envelope,
        {1: ("timestamp", _MSG), 2: ("namespace", _STR), 3: ("topic", _STR), 4: ("event", _MSG)},
    ),
    "containerd.events.TaskExit": (
        events_pb2.TaskExit,
        {
            1: ("container_id", _STR),
            2: ("id", _STR),
            3: ("pid", _U32),
            4: ("exit_status", _U32),
            5: ("exited_at", _MSG),
        },
    ),
    "containerd.services.sandbox.v1.ControllerStartResponse": (
        services_sandbox_v1_pb2.ControllerStartResponse,
        {
            1: ("sandbox_id", _STR),
            2: ("pid", _U32),
            3: ("created_at", _MSG),
            4: ("labels", _MSG),
            5: ("address", _STR),
            6: ("version", _U32),
            7: ("spec", _MSG),
        },
    ),
    "containerd.services.streaming.v1.StreamInit": (services_streaming_v1_pb2.StreamInit, {1: ("id", _STR)}),
    "containerd.types.transfer.Data": (types_transfer_pb2.Data, {1: ("data", _BYTES)}),
    "containerd.types.transfer.WindowUpdate": (
        types_transfer_pb2.WindowUpdate,
        {1: ("update", FieldDescriptor.TYPE_INT32)},
    ),
    "ttrpc.Request": (
        ttrpc_pb2.Request,
        {
            1: ("service", _STR),
            2: ("method", _STR),
            3: ("payload", _BYTES),
            4: ("timeout_nano", FieldDescriptor.TYPE_INT64),
            5: ("metadata", _MSG),
        },
    ),
    "ttrpc.Response": (ttrpc_pb2.Response, {1: ("status", _MSG), 2: ("payload", _BYTES)}),
    "google.rpc.Status": (
        rpc_status_pb2.Status,
        {1: ("code", FieldDescriptor.TYPE_INT32), 2: ("message", _STR), 3: ("details", _MSG)},
    ),
    "runtime.v1.PodSandboxConfig": (
        cri_v1_pb2.PodSandboxConfig,
        {
            1: ("metadata", _MSG),
            2: ("hostname", _STR),
            3: ("log_directory", _STR),
            4: ("dns_config", _MSG),
            6: ("labels", _MSG),
            7: ("annotations", _MSG),
            8: ("linux", _MSG),
        },
    ),
    "io.unikernel.shim.v1.CourierRequest": (
        courier_pb2.CourierRequest,
        {1: ("argv", _STR), 2: ("environment", _STR), 3: ("cwd", _STR), 4: ("stdin", _BYTES)},
    ),
}


@pytest.mark.parametrize("name", _SERVICES)
def test_services_have_their_methods(name: str) -> None:
    module, methods = _SERVICES[name]
    service = module.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
    assert service.full_name == name
    assert sorted(method.name for method in service.methods) == sorted(methods)


def test_there_are_seventeen_task_methods() -> None:
    assert len(_TASK) == 17


@pytest.mark.parametrize("name", _FIELDS)
def test_messages_have_their_fields(name: str) -> None:
    message, fields = _FIELDS[name]
    assert message.DESCRIPTOR.full_name == name
    assert {field.number: (field.name, field.type) for field in message.DESCRIPTOR.fields} == fields


def test_both_task_versions_are_one_contract() -> None:
    for old in task_v2_pb2.DESCRIPTOR.message_types_by_name.values():
        new = task_v3_pb2.DESCRIPTOR.message_types_by_name[old.name]
        kept = {field.number: (field.name, field.type) for field in new.fields}
        assert {field.number: (field.name, field.type) for field in old.fields}.items() <= kept.items()


def test_type_urls_of_what_containerd_unpacks() -> None:
    assert cgroups_v1_pb2.Metrics.DESCRIPTOR.full_name == "io.containerd.cgroups.v1.Metrics"
    assert cgroups_v2_pb2.Metrics.DESCRIPTOR.full_name == "io.containerd.cgroups.v2.Metrics"
    assert runc_options_pb2.ProcessDetails.DESCRIPTOR.full_name == "containerd.runc.v1.ProcessDetails"
    assert runtimeoptions_v1_pb2.Options.DESCRIPTOR.full_name == "runtimeoptions.v1.Options"
    assert bootstrap_v1_pb2.BootstrapParams.DESCRIPTOR.full_name == "containerd.runtime.bootstrap.v1.BootstrapParams"
    assert types_task_pb2.ProcessInfo.DESCRIPTOR.full_name == "containerd.v1.types.ProcessInfo"
    assert [types_task_pb2.Status.Value(name) for name in ("CREATED", "RUNNING", "STOPPED", "PAUSED")] == [1, 2, 3, 4]


def test_the_bootstrap_message_as_containerd_2_3_writes_it() -> None:
    """A vector: instance_id "i", namespace "n", both addresses, made from the field numbers alone."""
    vector = b"\x0a\x01i\x12\x01n\x2a\x02/t\x32\x02/g"
    parameters = bootstrap_v1_pb2.BootstrapParams.FromString(vector)
    assert (parameters.instance_id, parameters.namespace) == ("i", "n")
    assert (parameters.containerd_ttrpc_address, parameters.containerd_grpc_address) == ("/t", "/g")


_LOCK = Path(__file__).with_name("contract.lock")


def modules() -> list[ModuleType]:
    """Every generated module, by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(wire.__path__) if found.name.endswith("_pb2"))
    return [importlib.import_module(f"shim.wire.{name}") for name in names]


def contract(files: Iterable[ModuleType]) -> Iterator[str]:
    """All that the wire depends on, a line a method, field or enum value; neither texts nor files' names are in it."""
    for module in files:
        file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for service in file.service:
            for method in service.method:
                streams = "stream " if method.client_streaming or method.server_streaming else ""
                types = f"({method.input_type[1:]}) {streams}{method.output_type[1:]}"
                yield f"rpc {file.package}.{service.name}/{method.name} {types}"
        yield from _enums(file.package, file.enum_type)
        for message in file.message_type:
            yield from _message(file.package, message)


def _enums(scope: str, enums: Iterable[descriptor_pb2.EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        for value in enum.value:
            yield f"enum {scope}.{enum.name} {value.number} {value.name}"


def _message(scope: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    kinds, name = descriptor_pb2.FieldDescriptorProto, f"{scope}.{message.name}"
    yield f"message {name}"
    for field in sorted(message.field, key=lambda field: field.number):
        repeated = "repeated " if field.label == kinds.LABEL_REPEATED else ""
        optional = "optional " if field.proto3_optional else ""
        kind = field.type_name[1:] or kinds.Type.Name(field.type).removeprefix("TYPE_").lower()
        yield f"field {name} {field.number} {repeated}{optional}{kind} {field.name}"
    yield from _enums(name, message.enum_type)
    for nested in message.nested_type:
        yield from _message(name, nested)


def test_nothing_of_the_contract_changes_unnoticed() -> None:
    now, locked = set(contract(modules())), set(_LOCK.read_text().splitlines())
    assert (sorted(now - locked), sorted(locked - now)) == ([], []), "meant? python -m tests.unit.test_protos"


def test_the_lock_notices_a_number() -> None:
    """The comparison can fail: one field's number, in a copy of a file's descriptor."""
    file = descriptor_pb2.FileDescriptorProto.FromString(types_pb2.DESCRIPTOR.serialized_pb)
    mount = next(message for message in file.message_type if message.name == "Mount")
    before = list(_message(file.package, mount))
    mount.field[0].number = 9
    assert set(before) - set(_message(file.package, mount)) == {"field containerd.types.Mount 1 string type"}


def test_the_contract_lives_in_one_process_with_health_and_reflection() -> None:
    """One pool holds every file: a second definition of a name, or another file of the same path, is refused."""
    names = [f"shim.wire.{module.__name__.rpartition('.')[2]}" for module in modules()]
    others = ["grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"]
    for order in ([*names, *others], [*others, *reversed(names)]):
        program = "".join(f"import {name}\n" for name in order)
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_each_envelope_is_the_same_bytes() -> None:
    """Before 2.0 each events package had an Envelope of its own, with these numbers: a vector of one, in a request."""
    vector = b"\x0a\x0e\x12\x02ns\x1a\x08/tasks/x"
    for module in (services_events_v1_pb2, services_events_ttrpc_v1_pb2):
        request = module.ForwardRequest.FromString(vector)
        assert (request.envelope.namespace, request.envelope.topic) == ("ns", "/tasks/x")
        assert request.SerializeToString() == vector


if __name__ == "__main__":
    _LOCK.write_text("".join(f"{line}\n" for line in sorted(contract(modules()))))
