"""All sandboxes of the node: who is where, and how one comes and goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shim import log, telemetry
from shim.errors import AlreadyExists, NotFound, ShimError, WrongState
from shim.oci import bundle, rewrite
from shim.oci.rootfs import unmount_all
from shim.process import pidfd
from shim.sandbox import creation, identifiers
from shim.sandbox.container import Container
from shim.sandbox.creation import Order
from shim.sandbox.node import Node
from shim.sandbox.occurrences import SandboxCreated
from shim.sandbox.process import Process
from shim.sandbox.record import Pod
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import SandboxCall
from shim.telemetry import Tally

_log = log.get(__name__)

#: Seconds for a guest to power down where nobody says how many: containerd has given its container up, as after a
#: restart of the daemon, and waits for a pod to end, or for the container's next life. (The kubelet gives its calls two
#: minutes, --runtime-request-timeout.)
GRACE = 10.0

_AGAIN, _AGAIN_AT_MOST = 1.0, 60.0  # seconds until a removal that failed is tried again, doubled each time up to these


class Sandboxes:
    """Keyed by containerd's namespace and the id, as two namespaces may use one id."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._sandboxes: dict[tuple[str, str], Sandbox] = {}
        self._containers: dict[tuple[str, str], Container] = {}
        self._creating: dict[tuple[str, str], asyncio.Task[Container]] = {}
        #: Removals that failed, and that nobody asks for again.
        self._doomed: dict[tuple[str, str], asyncio.Task[None]] = {}

    def all(self) -> list[Sandbox]:
        """Every sandbox, oldest first."""
        return list(self._sandboxes.values())

    def sandbox(self, namespace: str, id: str) -> Sandbox:
        """The sandbox. Raises NotFound."""
        try:
            return self._sandboxes[namespace, id]
        except KeyError:
            raise NotFound("there is no such sandbox", subject=id) from None

    def container(self, namespace: str, id: str) -> Container:
        """The container. Raises NotFound in the words of containerd's runc shim."""
        try:
            return self._containers[namespace, id]
        except KeyError:
            raise NotFound("container not created", subject=id) from None

    def add(self, namespace: str, id: str, pod: Pod) -> Sandbox:
        """A new sandbox for the Sandbox API. Raises AlreadyExists, InvalidRequest."""
        identifiers.check(namespace, "namespace")
        identifiers.check(id, "sandbox id")
        if (namespace, id) in self._sandboxes:
            raise AlreadyExists("a sandbox with this id exists", subject=id)
        sandbox = Sandbox(self.node, namespace, id, pod)
        sandbox.note()
        self._sandboxes[namespace, id] = sandbox
        self.node.announce(SandboxCreated(**sandbox.about()))
        return sandbox

    def restore(self, sandbox: Sandbox) -> None:
        """Take in a sandbox that a former daemon made, before its containers."""
        self._sandboxes[sandbox.namespace, sandbox.id] = sandbox

    async def stop(self, namespace: str, id: str, grace: float = 0.0) -> None:
        """Stop a sandbox; a guest that still runs has `grace` seconds to power down. Raises NotFound.

        containerd stops and deletes the tasks first. One that is still there it has given up, as it does where a Wait
        broke: nobody will delete it, and while it is there containerd refuses to remove the pod.
        """
        sandbox = self.sandbox(namespace, id)
        await sandbox.stop(grace)
        for container in list(sandbox.containers.values()):
            await self.destroy(namespace, container.id)

    async def remove(self, namespace: str, id: str) -> None:
        """Remove a sandbox with all that is in it. Raises NotFound."""
        sandbox = self.sandbox(namespace, id)
        await sandbox.dissolve()
        for key in [key for key, held in self._containers.items() if held.record.sandbox == id and key[0] == namespace]:
            del self._containers[key]
        self._sandboxes.pop((namespace, id), None)

    async def create(self, namespace: str, order: Order) -> Container:
        """Create a container in its pod's sandbox, or in one of its own outside a pod.

        Cut off, it leaves nothing. Raises AlreadyExists, InvalidRequest, WrongState where the sandbox lets nothing in
        or the container is deleted meanwhile, and what `creation.create` raises.
        """
        identifiers.check(namespace, "namespace")
        key = namespace, identifiers.check(order.id, "container id")
        if key in self._containers or key in self._creating:
            raise AlreadyExists("a container with this id exists", subject=order.id)
        work = self._creating[key] = asyncio.ensure_future(self._create(namespace, order))
        try:
            return await work
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise WrongState("deleted, or its pod stopped, while it was being created", subject=order.id) from None
        finally:
            del self._creating[key]

    async def _create(self, namespace: str, order: Order) -> Container:
        spec = await asyncio.to_thread(bundle.read_spec, order.bundle)
        sandbox = self.home(namespace, identifiers.check(rewrite.sandbox_id(spec) or order.id, "sandbox id"))
        creation_of_this = asyncio.current_task()
        assert creation_of_this is not None
        sandbox.arriving.add(creation_of_this)
        try:
            await self._supersede(sandbox, rewrite.container_name(spec))
            async with sandbox.lock:
                sandbox.require(SandboxCall.CREATE)
                container = await creation.create(self.node, sandbox, order, spec)
                sandbox.containers[order.id] = container
                self._containers[namespace, order.id] = container
            if container.name in sandbox.names:
                telemetry.count(Tally.RESTARTED, container.kind)
            elif container.name:
                sandbox.names.add(container.name)
            return container
        finally:
            sandbox.arriving.discard(creation_of_this)
            self._forget_if_empty(sandbox)

    async def _cut_off(self, namespace: str, id: str) -> None:
        """End the creation of a container that somebody deletes; harmless when there is none."""
        work = self._creating.get((namespace, id))
        if work is not None:
            work.cancel()
            await asyncio.wait([work])

    async def _supersede(self, sandbox: Sandbox, name: str) -> None:
        """Remove a former life of the container that is to be created.

        containerd takes a Wait that breaks, as when the daemon is restarted, for the container's exit, and then never
        deletes the task. The pod's next life of the container would meet it on the network.
        """
        for former in [held for held in sandbox.containers.values() if name and held.name == name]:
            _log.warning("superseded", container=former.id, namespace=sandbox.namespace, name=name)
            await former.stop(GRACE)
            await self.destroy(sandbox.namespace, former.id)

    def adopt(self, container: Container) -> None:
        """Take in a container that a former daemon created."""
        record = container.record
        sandbox = self.home(record.namespace, record.sandbox)
        if sandbox.implied:
            sandbox.created_at = min(sandbox.created_at, pidfd.since_epoch(record.started))
        sandbox.containers[record.container] = container
        if container.name:
            sandbox.names.add(container.name)
        if record.unikernel:
            sandbox.claim(record.container)
        self._containers[record.namespace, record.container] = container

    async def unmount(self, bundle: Path) -> None:
        """Unmount whatever is mounted in a bundle nobody knows of; harmless when nothing is."""
        await asyncio.to_thread(unmount_all, bundle / "rootfs")

    async def delete(self, namespace: str, id: str, exec_id: str) -> Process:
        """Delete a container that has ended, or one of its execs. Raises NotFound, Unexpected."""
        await self._cut_off(namespace, id)
        container = self.container(namespace, id)
        process = await container.delete(exec_id)
        if not exec_id:
            self._drop(container)
        return process

    async def destroy(self, namespace: str, id: str) -> Process | None:
        """Kill and remove a container whatever its state; None when there is none."""
        await self._cut_off(namespace, id)
        container = self._containers.get((namespace, id))
        if container is None:
            return None
        process = await container.destroy()
        self._drop(container)
        return process

    async def destroy_pod(self, namespace: str, id: str) -> Process | None:
        """As `destroy`, with all that is in the sandbox of that id: where a pod's pause container goes, the pod goes.

        containerd has its couriers delete no other container of the pod, and asks once: what fails is tried again
        without being asked, by the next daemon too.
        """
        try:
            return await self._destroy_pod(namespace, id)
        except ShimError:
            self._doom(namespace, id)
            raise

    def _doom(self, namespace: str, id: str) -> None:
        sandbox = self._sandboxes.get((namespace, id))
        alone = self._containers.get((namespace, id))
        for container in [*(sandbox.containers.values() if sandbox else ()), *((alone,) if alone else ())]:
            container.doom(id)
        if (namespace, id) not in self._doomed:
            work = asyncio.ensure_future(self._destroy_later(namespace, id))
            self._doomed[namespace, id] = work
            work.add_done_callback(lambda _: self._doomed.pop((namespace, id), None))

    async def _destroy_later(self, namespace: str, id: str) -> None:
        pause = _AGAIN
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _AGAIN_AT_MOST)
            try:
                await self._destroy_pod(namespace, id)
            except ShimError as error:
                _log.error("still not removed", sandbox=id, namespace=namespace, error=str(error), again_in=pause)
            else:
                return

    async def _destroy_pod(self, namespace: str, id: str) -> Process | None:
        container = self._containers.get((namespace, id))
        if (namespace, id) in self._sandboxes:
            await self.remove(namespace, id)
            return container.init if container is not None else None
        return await self.destroy(namespace, id)

    def _drop(self, container: Container) -> None:
        record = container.record
        self._containers.pop((record.namespace, record.container), None)
        sandbox = self._sandboxes.get((record.namespace, record.sandbox))
        if sandbox is not None:
            sandbox.containers.pop(record.container, None)
            sandbox.release(record.container)
            self._forget_if_empty(sandbox)

    def home(self, namespace: str, id: str) -> Sandbox:
        """The sandbox of that id; a container that comes into none implies a new one."""
        if (namespace, id) not in self._sandboxes:
            self._sandboxes[namespace, id] = Sandbox(self.node, namespace, id)
        return self._sandboxes[namespace, id]

    def _forget_if_empty(self, sandbox: Sandbox) -> None:
        if sandbox.implied and not sandbox.containers and not sandbox.arriving:
            self._sandboxes.pop((sandbox.namespace, sandbox.id), None)
