"""From what happened in a sandbox to containerd's events."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from shim.events import Event, Publisher, Topic
from shim.oci.rootfs import Mount
from shim.sandbox import occurrences as happened
from shim.services.wellknown import timestamp
from shim.wire import events_pb2 as pb
from shim.wire import types_pb2


def mount_message(mount: Mount) -> types_pb2.Mount:
    """A mount as containerd's message."""
    return types_pb2.Mount(type=mount.type, source=mount.source, target=mount.target, options=mount.options)


def _created(it: happened.Created) -> Message:
    return pb.TaskCreate(
        container_id=it.container,
        bundle=it.bundle,
        rootfs=[mount_message(mount) for mount in it.rootfs],
        io=pb.TaskIO(
            stdin=it.streams.stdin, stdout=it.streams.stdout, stderr=it.streams.stderr, terminal=it.streams.terminal
        ),
        pid=it.pid,
    )


def _exited(it: happened.Exited) -> Message:
    return pb.TaskExit(
        container_id=it.container,
        id=it.process,
        pid=it.pid,
        exit_status=it.exit.status,
        exited_at=timestamp(it.exit.at),
    )


def _deleted(it: happened.Deleted) -> Message:
    return pb.TaskDelete(
        container_id=it.container, pid=it.pid, exit_status=it.exit.status, exited_at=timestamp(it.exit.at)
    )


_TRANSLATIONS: dict[type[happened.Occurrence], tuple[str, Callable[..., Message]]] = {
    happened.Created: (Topic.CREATE, _created),
    happened.Started: (Topic.START, lambda it: pb.TaskStart(container_id=it.container, pid=it.pid)),
    happened.ExecAdded: (
        Topic.EXEC_ADDED,
        lambda it: pb.TaskExecAdded(container_id=it.container, exec_id=it.process),
    ),
    happened.ExecStarted: (
        Topic.EXEC_STARTED,
        lambda it: pb.TaskExecStarted(container_id=it.container, exec_id=it.process, pid=it.pid),
    ),
    happened.OutOfMemory: (Topic.OOM, lambda it: pb.TaskOOM(container_id=it.container)),
    happened.Exited: (Topic.EXIT, _exited),
    happened.Deleted: (Topic.DELETE, _deleted),
    happened.Paused: (Topic.PAUSED, lambda it: pb.TaskPaused(container_id=it.container)),
    happened.Resumed: (Topic.RESUMED, lambda it: pb.TaskResumed(container_id=it.container)),
}


def event(occurrence: happened.Occurrence) -> Event | None:
    """The event that tells containerd of `occurrence`; None for what it is not told."""
    if type(occurrence) not in _TRANSLATIONS:
        return None
    topic, translate = _TRANSLATIONS[type(occurrence)]
    message = translate(occurrence)
    return Event(
        namespace=occurrence.namespace,
        topic=topic,
        type_url=message.DESCRIPTOR.full_name,
        value=message.SerializeToString(),
    )


def announcer(publisher: Publisher, default: str) -> Callable[[happened.Occurrence], None]:
    """What tells the containerd that started the container, else `default`."""

    def announce(occurrence: happened.Occurrence) -> None:
        made = event(occurrence)
        if made is not None:
            publisher.publish(occurrence.destination or default, made)

    return announce
