"""One sandbox: a pod's network namespace, its containers, and who of them has the network."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shim import log
from shim.errors import Bug, ShimError, WrongState
from shim.oci import rewrite
from shim.process.reaper import Exit
from shim.sandbox import files, namespaces
from shim.sandbox.container import Container
from shim.sandbox.node import Node
from shim.sandbox.occurrences import SandboxRemoved, SandboxStarted, SandboxStopped
from shim.sandbox.record import Pod, SandboxRecord
from shim.sandbox.state import SandboxCall, SandboxStatus, Status, require_sandbox, sandbox_may_become

_log = log.get(__name__)


class Sandbox:
    """A sandbox made by the Sandbox API (`pod` given), or implied by the first container that names it."""

    def __init__(self, node: Node, namespace: str, id: str, pod: Pod | None = None) -> None:
        self.node = node
        self.namespace = namespace
        self.id = id
        self.pod = pod
        self.created_at = time.time_ns()
        self.status = SandboxStatus.READY if pod is None else SandboxStatus.CREATED
        self.containers: dict[str, Container] = {}
        #: What the pod calls the containers that it has, or had.
        self.names: set[str] = set()
        #: Creations of containers under way, or waiting for their turn.
        self.arriving: set[asyncio.Task[Container]] = set()
        #: The pod's turn: whoever changes the pod or anything in it holds it. Other pods have their own.
        self.lock = asyncio.Lock()
        self.ended = asyncio.Event()
        self.exit: Exit | None = None
        self._network_owner: str | None = None
        self._pinned: Mapping[str, str] | None = None
        self._files: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Sandbox {self.namespace}/{self.id} {self.status} containers={sorted(self.containers)}>"

    @property
    def implied(self) -> bool:
        """Whether it lives only as long as its containers."""
        return self.pod is None

    @property
    def pod_name(self) -> tuple[str, str]:
        """Kubernetes' namespace and the pod's name in it, "" outside Kubernetes."""
        if self.pod is not None:
            return self.pod.namespace, self.pod.name
        return next((held.pod_name for held in self.containers.values()), ("", ""))

    @property
    def cgroup_parent(self) -> str:
        """The pod's own cgroup as CRI names it, "" where it has none or did not say."""
        return self.pod.cgroup_parent if self.pod is not None else ""

    @property
    def destination(self) -> str:
        """Where events go of containers that no courier was run for: where the pod's own go. "" for the configured."""
        if self.pod is not None:
            return self.pod.destination
        pause = self.containers.get(self.id)
        return pause.record.destination if pause is not None else ""

    @property
    def log_directory(self) -> str:
        """Where the kubelet wants the logs of its containers, "" where nobody said."""
        if self.pod is not None:
            return self.pod.log_directory
        pause = self.containers.get(self.id)
        return pause.log_directory if pause is not None else ""

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more."""
        if not self.implied:
            return self.exit is not None
        over = all(held.init.status in (Status.STOPPED, Status.DELETED) for held in self.containers.values())
        return over and not self.arriving

    @property
    def unikernel(self) -> Container | None:
        """The unikernel among its containers; of several lives the one that has not ended."""
        found = [held for held in self.containers.values() if held.record.unikernel]
        return min(found, key=lambda held: held.init.status is Status.STOPPED, default=None)

    @property
    def directory(self) -> Path:
        """Where what belongs to the sandbox alone is kept."""
        return self.node.sandbox_dir(self.namespace, self.id)

    def claim(self, container: str) -> None:
        """Give the pod's network to a unikernel. Raises WrongState when another has it that has not ended."""
        owner = self.containers.get(self._network_owner or "")
        ended = owner is not None and owner.init.status is Status.STOPPED
        if self._network_owner not in (None, container) and not ended:
            raise WrongState(
                f"the pod already runs the unikernel {self._network_owner}: both would be one host on the network",
                subject=container,
                remedy="put each unikernel in a pod of its own",
            )
        self._network_owner = container

    def release(self, container: str) -> None:
        """Take the network back; harmless when `container` does not have it."""
        if self._network_owner == container:
            self._network_owner = None

    async def netns_for(self, spec: rewrite.Spec) -> str | None:
        """The network namespace a container's configuration means: a path, "" for a new one, None for the node's."""
        path = rewrite.namespace_path(spec, "network")
        if path is not None and rewrite.is_missing_pause(path):
            return (self.pod.netns if self.pod else "") or None
        pause = self.containers.get(self.id)
        if path and pause is not None and path == f"/proc/{pause.init.pid}/ns/net":
            # containerd names the pause process, which may die before the unikernel; what the pause itself was given
            # is there until the CNI plugin's DEL has run.
            return path if pause.netns == "" else pause.netns
        return path

    async def ordinary(self, spec: rewrite.Spec) -> rewrite.Spec:
        """An ordinary container's configuration as this pod needs it: `spec` itself where nothing must change."""
        if self.pod is None or not rewrite.wants_pause(spec):
            return spec
        if self._pinned is None:
            self._pinned = await asyncio.to_thread(namespaces.of_pod, self.directory, self.pod)
        if self._files is None:
            self._files = await asyncio.to_thread(files.make, self.directory, self.pod)
        spec = rewrite.in_pod_without_pause(spec, self.pod.netns, self._pinned, host_pid=self.pod.host_pid)
        return rewrite.with_pod_files(spec, self._files)

    async def with_names(self, spec: rewrite.Spec) -> rewrite.Spec:
        """A unikernel's configuration with the files that its pod's containers find names by."""
        if self.pod is None or not rewrite.wants_pause(spec):
            return spec  # containerd has put its own there
        return rewrite.with_pod_files(spec, await asyncio.to_thread(files.make_names, self.directory, self.pod))

    def note(self) -> None:
        """Write what the next daemon must know. Raises NodeFault. An implied sandbox is known by its containers."""
        if self.pod is not None:
            record = SandboxRecord(
                namespace=self.namespace,
                sandbox=self.id,
                pod=self.pod,
                created_at=self.created_at,
                status=self.status,
                exit=self.exit,
            )
            self.node.pods.write(record.key, record)

    @classmethod
    def of(cls, node: Node, record: SandboxRecord) -> Sandbox:
        """The sandbox that a former daemon noted, as yet without containers."""
        sandbox = cls(node, record.namespace, record.sandbox, record.pod)
        sandbox.created_at, sandbox.status, sandbox.exit = record.created_at, record.status, record.exit
        if sandbox.exit is not None:
            sandbox.ended.set()
        return sandbox

    def require(self, call: SandboxCall) -> None:
        """Raise WrongState or AlreadyExists unless `call` is allowed now."""
        require_sandbox(self.status, call, self.id)

    def _become(self, status: SandboxStatus) -> None:
        """The one place where the status changes. Raises Bug for a step the picture in `state` does not have."""
        if not sandbox_may_become(self.status, status):
            raise Bug(f"a {self.status} sandbox cannot become {status}", subject=self.id)
        _log.debug("sandbox", sandbox=self.id, was=self.status.value, now=status.value)
        self.status = status

    def about(self) -> dict[str, Any]:
        """What every occurrence says of it."""
        return {"namespace": self.namespace, "sandbox": self.id, "pod": self.pod_name}

    def start(self) -> None:
        """Say that the sandbox runs. Raises AlreadyExists when it does, WrongState when it has ended, NodeFault."""
        self.require(SandboxCall.START)
        self._become(SandboxStatus.READY)
        try:
            self.note()
        except ShimError:
            self.status = SandboxStatus.CREATED  # nobody has seen it otherwise: there was no await
            raise
        self.node.announce(SandboxStarted(**self.about()))

    async def stop(self, grace: float = 0.0) -> None:
        """End what runs and give the network back; containers stay until they are deleted. Harmless when repeated.

        A guest that can be asked has `grace` seconds to power down; the rest is killed.

        Raises the first failure after trying every container; the sandbox then lets nothing in, and can be stopped
        again.
        """
        if self.status not in (SandboxStatus.STOPPING, SandboxStatus.STOPPED):
            self._become(SandboxStatus.STOPPING)
            self._note_if_possible()
        # Nothing new comes in from here on, so the turn is needed only for what each container does itself.
        for creation in list(self.arriving):
            creation.cancel()
        if self.arriving:
            await asyncio.wait(list(self.arriving))
        failure: ShimError | None = None
        # The pause container last: containers may know their namespaces only by its process.
        for container in sorted(self.containers.values(), key=lambda held: held.id == self.id):
            try:
                await container.stop(grace)
            except ShimError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        if self.status is SandboxStatus.STOPPING:
            self.exit = Exit(0, time.time_ns())
            self._become(SandboxStatus.STOPPED)
            self._note_if_possible()
            self.ended.set()
            if not self.implied:
                self.node.announce(SandboxStopped(**self.about()))

    def _note_if_possible(self) -> None:
        """An end must not wait for a disk: a daemon that finds the older record finishes the same work."""
        try:
            self.note()
        except ShimError as error:
            _log.error("journal", sandbox=self.id, error=str(error))

    async def dissolve(self) -> None:
        """Remove every container and what is the sandbox's own. Raises the first failure after trying everything."""
        await self.stop()
        failure: ShimError | None = None
        for container in list(self.containers.values()):
            try:
                await container.destroy()
            except ShimError as error:
                failure = failure or error
                continue
            self.containers.pop(container.id, None)
        async with self.lock:
            await asyncio.to_thread(remove_own, self.directory)
        if failure is not None:
            raise failure
        self.node.pods.forget(f"{self.namespace}@{self.id}")
        if not self.implied:
            self.node.announce(SandboxRemoved(**self.about()))


def remove_own(directory: Path) -> None:
    """Remove what a sandbox alone has under `directory`; harmless when there is nothing; blocks."""
    namespaces.unpin(directory)
    files.remove(directory)
    shutil.rmtree(directory, ignore_errors=True)
