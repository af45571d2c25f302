"""What an operator may ask: which pods there are, all of one, its network, what happens, and a guest's own words."""

from __future__ import annotations

from typing import Any

import msgspec

from shim import __version__
from shim.rpc.service import Call, Stream
from shim.sandbox.checks import Checker
from shim.sandbox.chronicle import Chronicle
from shim.sandbox.description import describe
from shim.sandbox.lookup import find
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.topology import topology_of
from shim.services.consoles import console
from shim.services.following import event, follow
from shim.services.wellknown import timestamp
from shim.wire import inspection_pb2 as pb


class InspectionService:
    """Messages in, messages out. It sees every containerd namespace."""

    def __init__(self, sandboxes: Sandboxes, checker: Checker, chronicle: Chronicle) -> None:
        self._sandboxes = sandboxes
        self._checker = checker
        self._chronicle = chronicle

    async def about(self, request: Any, call: Call) -> Any:
        """Which daemon this is."""
        return pb.AboutResponse(version=__version__)

    async def list(self, request: Any, call: Call) -> Any:
        """Every sandbox, oldest first."""
        return pb.ListResponse(sandboxes=[_entry(sandbox) for sandbox in self._sandboxes.all()])

    async def events(self, request: Any, stream: Stream, call: Call) -> None:
        """What has happened, and what happens."""
        if request.follow:
            await follow(self._chronicle, request.pod, stream)
            return
        for line in self._chronicle.recent():
            if line.concerns(request.pod):
                await stream.send(event(line))

    async def logs(self, request: Any, call: Call) -> Any:
        """Where what its containers write is kept."""
        sandbox = find(self._sandboxes.all(), request.pod)
        namespace, name = sandbox.pod_name
        return pb.LogsResponse(
            id=sandbox.id,
            pod_namespace=namespace,
            pod_name=name,
            directory=sandbox.log_directory,
            containers=[
                pb.LoggedContainer(
                    id=container.id,
                    name=container.name,
                    unikernel=container.record.unikernel,
                    terminal=container.record.streams.terminal,
                    stdout=container.record.streams.stdout,
                    words=container.last_words(),
                )
                for container in sandbox.containers.values()
            ],
        )

    async def console(self, stream: Stream, call: Call) -> None:
        """One who attaches to a terminal, from its first message to its end."""
        await console(self._sandboxes.all(), stream)

    async def inspect(self, request: Any, call: Call) -> Any:
        """All that is known of one."""
        found = describe(find(self._sandboxes.all(), request.pod))
        return pb.InspectResponse(json=msgspec.json.encode(found).decode())

    async def topology(self, request: Any, call: Call) -> Any:
        """Its network as it is."""
        found = await topology_of(find(self._sandboxes.all(), request.pod))
        return pb.TopologyResponse(json=msgspec.json.encode(found).decode())

    async def check(self, request: Any, call: Call) -> Any:
        """Ask its guest, its gateway and its router."""
        sandbox = find(self._sandboxes.all(), request.pod)
        report = await self._checker.check(sandbox)
        namespace, name = sandbox.pod_name
        return pb.CheckResponse(
            id=sandbox.id,
            pod_namespace=namespace,
            pod_name=name,
            failed=report.failed,
            at=timestamp(report.at),
            seconds=report.took,
            findings=[
                pb.Finding(
                    interface=finding.interface,
                    family=finding.family,
                    probe=finding.probe.value,
                    outcome=finding.outcome.value,
                    sentence=finding.sentence,
                    remedy=finding.remedy,
                    failed=finding.failed,
                )
                for finding in report.findings
            ],
        )


def _entry(sandbox: Sandbox) -> pb.SandboxEntry:
    namespace, name = sandbox.pod_name
    guest = sandbox.unikernel
    nics = guest.record.plumbing.plan.nics if guest is not None and guest.record.plumbing is not None else ()
    addresses = [address.partition("/")[0] for nic in nics for address in (nic.address, nic.address6) if address]
    return pb.SandboxEntry(
        id=sandbox.id,
        namespace=sandbox.namespace,
        pod_namespace=namespace,
        pod_name=name,
        unikernel=guest.id if guest is not None else "",
        status=guest.init.status.value if guest is not None else "",
        addresses=addresses,
        state=sandbox.status.value,
        ended=sandbox.over,
        guest=guest.record.guest if guest is not None else "",
        monitor=guest.record.monitor if guest is not None else "",
        created_at=timestamp(sandbox.created_at),
    )
