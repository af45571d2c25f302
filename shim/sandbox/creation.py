"""Making a container: journal, root file system, recognition, network, engine. What fails is undone by `teardown`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from shim import log, oom, telemetry
from shim.errors import ShimError
from shim.oci import bundle, rewrite
from shim.oci.engine import uses_systemd
from shim.oci.image import Unikernel, recognise
from shim.oci.rootfs import Mount, mount_all
from shim.oci.volumes import block_devices
from shim.process import pidfd
from shim.process.relay import Overheard
from shim.process.stdio import Streams
from shim.process.terminal import ConsoleSocket, relay
from shim.sandbox.container import Container, console_path
from shim.sandbox.disks import root_of
from shim.sandbox.node import Node
from shim.sandbox.occurrences import Created, Failed, about
from shim.sandbox.record import ContainerRecord
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.teardown import dismantle
from shim.sandbox.unikernel import prepare
from shim.telemetry import Phase
from shim.threads import in_thread

_log = log.get(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A container to create, as its caller describes it."""

    id: str
    bundle: Path
    rootfs: tuple[Mount, ...] = ()
    streams: Streams = Streams()
    destination: str = ""


async def create(node: Node, sandbox: Sandbox, order: Order, spec: rewrite.Spec) -> Container:
    """Create `order` in `sandbox`; all of it, or nothing is left. `spec` is the bundle's configuration.

    Raises ImageFault, InvalidRequest, NetworkFault, NodeFault, WrongState, or Unexpected with the engine's words.
    """
    with telemetry.phase(Phase.CREATE, container=order.id, sandbox=sandbox.id, namespace=sandbox.namespace) as span:
        container = await _create(node, sandbox, order, spec)
        span.note(kind=container.kind)
    return container


async def _create(node: Node, sandbox: Sandbox, order: Order, spec: rewrite.Spec) -> Container:
    record = ContainerRecord(
        namespace=sandbox.namespace,
        container=order.id,
        sandbox=sandbox.id,
        pod=rewrite.pod_name(spec),
        bundle=order.bundle,
        destination=order.destination or sandbox.destination,
        streams=order.streams,
        user=int(spec["process"].get("user", {}).get("uid", 0)),
        cgroup=rewrite.cgroups_path(spec),
    )
    root = bundle.root_of(order.bundle, spec)
    if order.rootfs:
        record.rootfs = root
    node.journal.write(record.key, record)
    creating: _Creation | None = None
    try:
        if order.rootfs:
            with telemetry.phase(Phase.MOUNT):
                await in_thread(_mount, order.rootfs, root)
        with telemetry.phase(Phase.RECOGNISE):
            image = await asyncio.to_thread(_recognise, spec, root)
        creating = _Creation(node, sandbox, record, spec, order.rootfs)
        container = await creating.run(image)
    except BaseException as error:
        if creating is not None:
            await creating.abandon()
        sandbox.release(order.id)
        try:
            # Shielded: a cancelled call must not leave half a container behind.
            await asyncio.shield(dismantle(node, record))
        except ShimError as cleanup:
            error.add_note(f"and cleaning up failed: {cleanup}")
            _log.error("cleanup after a failed create", container=order.id, error=str(cleanup))
        why = str(error) or "it was called off"  # a cancellation has no words
        node.announce(Failed(**about(record), call="created", error=why))
        raise
    node.announce(
        Created(
            **about(record),
            pid=container.init.pid,
            bundle=str(order.bundle),
            rootfs=order.rootfs,
            streams=order.streams,
        )
    )
    return container


def _mount(mounts: tuple[Mount, ...], root: Path) -> None:
    root.mkdir(mode=0o711, exist_ok=True)
    mount_all(mounts, root)


def _recognise(spec: rewrite.Spec, root: Path) -> Unikernel | None:
    if rewrite.is_sandbox(spec):
        return None
    return recognise(
        root,
        arguments=tuple(spec["process"].get("args") or ()),
        annotations=rewrite.annotations_of(spec),
        devices=tuple(device.path for device in block_devices(spec)),
    )


class _Creation:
    """One creation under way, and what of it is open in this process."""

    def __init__(
        self, node: Node, sandbox: Sandbox, record: ContainerRecord, spec: rewrite.Spec, rootfs: tuple[Mount, ...]
    ) -> None:
        self._node, self._sandbox, self._record, self._spec, self._rootfs = node, sandbox, record, spec, rootfs
        self._container: Container | None = None

    async def run(self, image: Unikernel | None) -> Container:
        node, record = self._node, self._record
        netns = await self._sandbox.netns_for(self._spec)
        settle, handed = 0.0, tuple[int, ...]()
        if image is not None:
            self._sandbox.claim(record.container)
            record.unikernel = True
            record.own_bundle = node.container_dir(record.namespace, record.container)
            record.stderr = record.own_bundle / "stderr"
            node.journal.write(record.key, record)
            root = await in_thread(root_of, record.bundle, self._spec, self._rootfs)
            named = await self._sandbox.with_names(self._spec)
            prepared = await prepare(node, record, named, image, netns, root)
            spec, handed = prepared.spec, prepared.descriptors
            settle = node.monitors[image.monitor].settle
        else:
            spec = await self._sandbox.ordinary(self._spec)
            if spec is not self._spec:
                record.own_bundle = node.container_dir(record.namespace, record.container)
                node.journal.write(record.key, record)
                spec = rewrite.with_root(spec, bundle.root_of(record.bundle, spec))
        self._container = Container(node, record, spec, self._sandbox.lock, settle=settle)
        self._container.handed = handed
        if record.own_bundle is not None:
            await in_thread(bundle.write_spec, record.own_bundle, spec)
        record.engine = True
        node.journal.write(record.key, record)
        with telemetry.phase(Phase.ENGINE_CREATE, kind=self._container.kind):
            await self._engine_create(self._container, spec)
        return self._container

    async def _engine_create(self, container: Container, spec: rewrite.Spec) -> None:
        node, record = self._node, self._record
        engine = node.engine.within(record.namespace)
        where = record.own_bundle or record.bundle
        systemd = uses_systemd(rewrite.cgroups_path(spec))
        extra = {3 + position: descriptor for position, descriptor in enumerate(container.handed)}
        with node.reaper.early_exits() as early:
            if record.streams.terminal:
                socket = ConsoleSocket(console_path(node, record, ""))
                try:
                    pid = await engine.create(record.container, where, fds=extra, console=socket.path, systemd=systemd)
                    master = await socket.receive()
                finally:
                    socket.close()
                container.init.terminal = await relay(
                    node.stdio, master, record.streams, record.container, record.namespace
                )
            else:
                streams = await node.stdio.all(record.streams, record.container, record.namespace)
                container.init.descriptors = streams
                if record.stderr is not None:
                    container.stderr = Overheard(record.stderr, streams.child[2])
                    streams.child[2] = container.stderr.for_child()
                try:
                    pid = await engine.create(record.container, where, fds={**streams.child, **extra}, systemd=systemd)
                finally:
                    streams.close_child()
            container.init.pid = record.pid = pid
            exit = node.reaper.watch(pid, early)
        try:
            record.started = pidfd.start_time(pid)
        except ProcessLookupError:
            record.started = 0  # dead already; its exit is on its way
        record.oom_counter = await asyncio.to_thread(oom.counter_of, pid)
        node.journal.write(record.key, record)
        container.supervise(exit)

    async def abandon(self) -> None:
        """Close what this process holds of a creation that failed; the world's part is `teardown`'s."""
        if self._container is not None:
            self._container.let_go()
            await self._container.init.close_streams(0.0)
            if self._container.stderr is not None:
                self._container.stderr.close()
