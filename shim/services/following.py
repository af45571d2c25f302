"""What happens to pods, told to one who asks."""

from __future__ import annotations

from shim.feed import Missed
from shim.rpc.service import Stream
from shim.sandbox.chronicle import Chronicle, Entry
from shim.services.wellknown import timestamp
from shim.wire import inspection_pb2 as pb


async def follow(chronicle: Chronicle, wanted: str, stream: Stream) -> None:
    """Send what concerns the pod that is wanted, "" for all, until the caller goes away."""
    with chronicle.follow() as listener:
        while (line := await listener.next()) is not None:
            if isinstance(line, Missed):
                missed = f"{line.count} events were missed: they were not read in time"
                await stream.send(pb.Event(what="missed", sentence=missed))
            elif line.concerns(wanted):
                await stream.send(event(line))


def event(line: Entry) -> pb.Event:
    """The message for a line."""
    namespace, name = line.pod
    return pb.Event(
        at=timestamp(line.at),
        namespace=line.namespace,
        sandbox=line.sandbox,
        pod_namespace=namespace,
        pod_name=name,
        container=line.container,
        what=line.what,
        sentence=line.sentence,
        exit_status=line.exit_status,
    )
