"""From an image that holds a unikernel to an OCI configuration that runs its monitor on the pod's network."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from shim import log, telemetry
from shim.errors import ImageFault, NetworkFault
from shim.guests import linux
from shim.guests.base import GuestSpec, check_versions
from shim.guests.nanos import Nanos
from shim.monitors.base import Launch, Machine, Monitor, Nic
from shim.monitors.control import listen
from shim.network.addressing.interfaces import candidates
from shim.network.dataplanes.wiring import TapOptions
from shim.network.plan import make_plan
from shim.network.pod import PodNetwork
from shim.network.view import GuestInterface
from shim.oci import bundle, rewrite
from shim.oci.annotations import Assignment
from shim.oci.image import Unikernel
from shim.sandbox import occurrences
from shim.sandbox.booting import booted
from shim.sandbox.disks import Provided, provide
from shim.sandbox.nics import match
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord, PodPlan
from shim.sandbox.resources import guest_cpus, guest_memory
from shim.sandbox.stopping import patience
from shim.sandbox.volumes import RootFileSystem
from shim.telemetry import Phase
from shim.threads import in_thread

_log = log.get(__name__)

_MIB = 1 << 20
_FIRST_FD = 3  # the first descriptor after the standard streams (runc and crun, --preserve-fds)
# The word by which a family's kernel is told its processor's rate.
_CLOCKS = {"linux": linux.CLOCK}
# The families whose kernels read no command line where they are started by PVH (docs/guests/nanos.md).
_DEAF = frozenset({Nanos.name})


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to create the monitor's container.

    `descriptors` are open, the taps first, and the caller's to close; the monitor finds them in that order, from the
    first one behind its standard streams. A control socket is the last one.
    """

    spec: rewrite.Spec
    launch: Launch
    descriptors: tuple[int, ...] = ()


class Plumbed(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's network in a guest's hands: what it is told, the manifest's devices ("" for none), the taps' names, and
    their descriptors where they are open."""

    interfaces: tuple[GuestInterface, ...] = ()
    devices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    taps: tuple[int, ...] = ()


async def plumb(node: Node, record: ContainerRecord, image: Unikernel, netns: str | None, monitor: Monitor) -> Plumbed:
    """Read the pod's network, match, plan, journal, and apply; nothing where the guest gets no network.

    `netns` is None for the node's own namespace and "" for a new, empty one: neither has a pod network. The caller
    closes the taps. Raises NetworkFault where the pod's network cannot be handed over, or is demanded and not there,
    and the errors of `nics.match`.
    """
    if image.network == "none" or not netns:
        return _without(image)
    if image.kernel.net_devices == () and not image.nics:
        if image.network == "required":
            raise ImageFault(
                "the unikernel demands a network and its kernel's manifest names no network device",
                subject=image.path.name,
                remedy="build it with one, or set io.unikernel.network to auto",
            )
        return Plumbed()
    by_name, sent = await monitor.attaches_by_name(), booted(monitor)
    tap = TapOptions(
        vnet_hdr=monitor.vnet_hdr,
        by_name=by_name,
        persistent=by_name or sent,
        owner=record.user if by_name else None,
    )
    with telemetry.phase(Phase.PLUMB):
        plumbed = await _plumb(node, record, image, netns, tap)
    if sent:
        # Whoever boots the guest opens them by name: that may be another daemon.
        close_all(plumbed.taps)
        return msgspec.structs.replace(plumbed, taps=())
    return plumbed


async def _plumb(node: Node, record: ContainerRecord, image: Unikernel, netns: str, tap: TapOptions) -> Plumbed:
    begun = time.monotonic()
    async with await PodNetwork.open(Path(netns)) as network:
        with telemetry.phase(Phase.LAYOUT):
            layout = await network.layout()
        nics = _match(image, candidates(layout))
        if not nics:
            return _without(image)
        with telemetry.phase(Phase.PLAN):
            plan = make_plan(
                layout,
                seed=record.sandbox,
                dataplane=image.dataplane or node.config.network.dataplane,
                tap=tap,
                interfaces=tuple(nic.interface for nic in nics),
            )
        notes = (*plan.notes, *(check_versions(node.guests[image.guest], interface) for interface in plan.guest))
        for note in filter(None, notes):
            _log.warning("the guest will not have all the pod has", container=record.container, note=note)
        record.plumbing = PodPlan(netns=netns, plan=plan)
        node.journal.write(record.key, record)
        with telemetry.phase(Phase.APPLY):
            taps = tuple(await network.apply(plan))
        # Whatever is journalled next carries it there.
        record.plumbing = PodPlan(netns=netns, plan=plan, took=time.monotonic() - begun)
    node.announce(
        occurrences.Plumbed(
            **occurrences.about(record),
            interfaces=tuple(f"{nic.name} {nic.address or nic.address6}".rstrip() for nic in plan.nics),
            took=record.plumbing.took,
        )
    )
    return Plumbed(
        interfaces=plan.guest,
        devices=tuple(nic.device for nic in nics),
        names=tuple(nic.tap for nic in plan.nics),
        taps=taps,
    )


def _without(image: Unikernel) -> Plumbed:
    """No NIC. Raises NetworkFault where a network is demanded, ImageFault where the kernel has devices for one."""
    if image.network == "required":
        raise NetworkFault(
            "the unikernel demands a network and its container has no pod network",
            subject="io.unikernel.network",
            remedy="run it in a pod with a network, or set the annotation to auto",
        )
    _match(image, ())
    return Plumbed()


def _match(image: Unikernel, offered: tuple[str, ...]) -> tuple[Assignment, ...]:
    return match(image.kernel.net_devices, offered, image.nics, image.path.name)


async def prepare(
    node: Node,
    record: ContainerRecord,
    spec: rewrite.Spec,
    image: Unikernel,
    netns: str | None,
    root: RootFileSystem,
) -> Prepared:
    """Everything between recognising a unikernel and asking the engine for its monitor's container.

    Leaves in the world only what the record speaks of. Raises the errors of storage, plan, guest and monitor.
    """
    monitor, guest = node.monitors[image.monitor], node.guests[image.guest]
    limit = rewrite.memory_limit(spec)
    # The guest gets less than the limit, and its monitor needs no more for that.
    overhead = monitor.overhead(limit // _MIB)
    size = _Size(
        memory=guest_memory(image.memory, limit, node.config.guest.memory, overhead, guest.minimum),
        cpus=guest_cpus(rewrite.cpus(spec), monitor.cpus),
    )
    # Before the network: what may take long, or be refused, must not cost the pod its address meanwhile.
    with telemetry.phase(Phase.STORAGE):
        storage = await provide(node, record, spec, image, root)
    network = await plumb(node, record, image, netns, monitor)
    if record.plumbing is not None:
        record.plumbing = msgspec.structs.replace(record.plumbing, dns=storage.dns)
    descriptors = network.taps
    try:
        vhost = await monitor.open_vhost(len(network.interfaces))
        descriptors += vhost
        own = node.container_dir(record.namespace, record.container)
        record.monitor, record.guest = monitor.name, image.guest
        record.powerdown = patience(monitor.powerdown, rewrite.termination_grace(spec))
        control = None
        if record.powerdown or booted(monitor):
            control = _FIRST_FD + len(descriptors)
            descriptors += (listen(own),)
        with telemetry.phase(Phase.CONFIGURE):
            launch = await _launch(node, spec, image, network, storage, size, vhost=bool(vhost), control=control)
            record.machine = launch.machine
            rewritten = await in_thread(_bundle, own, spec, launch, storage, netns or "")
    except BaseException:
        close_all(descriptors)
        raise
    _log.info(
        "unikernel prepared",
        container=record.container,
        guest=image.guest,
        monitor=image.monitor,
        memory=size.memory,
        cpus=size.cpus,
        disks=[f"{volume.target or volume.device or 'bare'} {volume.format}".strip() for volume in storage.volumes],
        address=[str(interface.address) for interface in network.interfaces],
        gateway=[str(interface.gateway) for interface in network.interfaces],
        mac=[interface.mac for interface in network.interfaces],
    )
    return Prepared(spec=rewritten, launch=launch, descriptors=descriptors)


class _Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large the guest's machine is: MiB, and virtual processors."""

    memory: int
    cpus: int


async def _launch(
    node: Node,
    spec: rewrite.Spec,
    image: Unikernel,
    network: Plumbed,
    storage: Provided,
    size: _Size,
    *,
    vhost: bool,
    control: int | None,
) -> Launch:
    """Ask the guest for its words and the monitor for its command line; `vhost` says that a descriptor of vhost-net for
    each NIC comes behind the taps', `control` is the number of the control socket's."""
    monitor = node.monitors[image.monitor]
    nics = tuple(
        Nic(
            fd=_FIRST_FD + position,
            tap=tap,
            mac=interface.mac,
            mtu=interface.mtu,
            device=device,
            vhost=_FIRST_FD + len(network.taps) + position if vhost else None,
        )
        for position, (interface, tap, device) in enumerate(
            zip(network.interfaces, network.names, network.devices, strict=True)
        )
    )
    words = node.guests[image.guest].words(
        GuestSpec(
            arguments=image.arguments,
            environment=rewrite.environment(spec),
            # Without a pause container the configuration has no host name, but containerd says it here too.
            hostname=rewrite.hostname(spec) or rewrite.environment(spec).get("HOSTNAME", ""),
            cmdline=image.cmdline,
            interfaces=network.interfaces,
            dns=storage.dns,
            volumes=storage.volumes,
            version=image.version,
            console=monitor.console,
            program=image.program,
            cwd=rewrite.working_directory(spec),
            devices=network.devices if image.kernel.net_devices is not None else (),
        )
    )
    return await monitor.launch(
        Machine(
            kernel=rewrite.KERNEL,
            memory=size.memory,
            cpus=size.cpus,
            words=words,
            initrd=rewrite.INITRD if storage.files.initrd else None,
            nics=nics,
            disks=storage.disks,
            directories=storage.directories,
            kind=image.kind,
            clock=_CLOCKS.get(image.guest, ""),
            # An ELF file counts as Linux's by its PVH note.
            deaf=image.guest in _DEAF and image.kernel.family == "linux",
            control=control,
        )
    )


def _bundle(own: Path, spec: rewrite.Spec, launch: Launch, storage: Provided, netns: str) -> rewrite.Spec:
    """Make the monitor's root under `own`; returns the configuration for it."""
    devices = (*(bundle.device(path) for path in launch.devices), *storage.devices)
    bundle.make_monitor_root(own / "root", launch)
    return rewrite.for_monitor(spec, launch, devices, storage.files, own / "root", netns)


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors the engine has taken copies of."""
    for descriptor in descriptors:
        os.close(descriptor)
