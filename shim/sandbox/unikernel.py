"""From an image that holds a unikernel to an OCI configuration that runs its monitor on the pod's network."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from shim import log
from shim.errors import ImageFault, InvalidRequest, NetworkFault
from shim.guests.base import GuestSpec
from shim.monitors.base import Launch, Machine, Monitor, Nic
from shim.network.pod import PodNetwork
from shim.network.view import GuestInterface
from shim.oci import bundle, rewrite
from shim.oci.image import Unikernel
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord, PodPlan

_log = log.get(__name__)

_FIRST_FD = 3  # the first descriptor after the standard streams (runc and crun, --preserve-fds)
_MIB = 1 << 20


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to create the monitor's container; the caller closes `taps` once it has."""

    spec: rewrite.Spec
    launch: Launch
    taps: tuple[int, ...] = ()


def guest_memory(wish: int | None, limit: int, default: int, overhead: int) -> int:
    """The guest's memory in MiB from the annotation's wish, the container's limit in bytes (0: none), the default,
    and the monitor's own need in MiB. Raises InvalidRequest where they cannot all be true."""
    if not limit:
        return wish or default
    room = limit // _MIB - overhead
    if wish and wish > room:
        raise InvalidRequest(
            f"a guest of {wish} MiB and its monitor ({overhead} MiB) exceed the memory limit of {limit // _MIB} MiB",
            subject="io.unikernel.memory",
            remedy="raise the limit or lower the annotation",
        )
    if room < 1:
        raise InvalidRequest(
            f"the memory limit of {limit // _MIB} MiB leaves no room for a guest beside its monitor ({overhead} MiB)",
            subject="resources.limits.memory",
            remedy="raise the limit",
        )
    return wish or room


def name_nics(devices: tuple[str, ...], interfaces: tuple[GuestInterface, ...], kernel: Path) -> tuple[str, ...]:
    """The manifest's name for each interface, in order; "" for a kernel without a manifest.

    Raises ImageFault when the kernel's manifest and the pod's interfaces do not match, naming both.
    """
    if len(devices) != len(interfaces):
        have = ", ".join(interface.name for interface in interfaces) or "none"
        raise ImageFault(
            f"the kernel's manifest asks for the network devices [{', '.join(devices)}], the pod offers [{have}]",
            subject=kernel.name,
            remedy="build the kernel with as many network devices as the pod has",
        )
    return devices


async def plumb(
    node: Node, record: ContainerRecord, image: Unikernel, netns: str | None, monitor: Monitor
) -> PodNetwork | None:
    """Read the pod's network, plan, journal, and apply; None where the guest gets no network.

    `netns` is None for the node's own namespace and "" for a new, empty one: neither has a pod network. The caller
    closes the returned network. Raises NetworkFault where the pod's network cannot be handed over, or is demanded and not there.
    """
    if image.network == "none" or not netns:
        if image.network == "required":
            raise NetworkFault(
                "the unikernel demands a network and its container has no pod network",
                subject="io.unikernel.network",
                remedy="run it in a pod with a network, or set the annotation to auto",
            )
        return None
    network = await PodNetwork.open(Path(netns))
    try:
        plan = await network.plan(
            dataplane=node.config.network.dataplane,
            seed=record.sandbox,
            by_name=await monitor.attaches_by_name(),
            owner=record.user,
        )
        record.plumbing = PodPlan(netns=netns, plan=plan)
        node.journal.write(record.key, record)
        await network.apply(plan)
    except BaseException:
        network.close()
        raise
    return network


async def prepare(
    node: Node, record: ContainerRecord, spec: rewrite.Spec, image: Unikernel, netns: str | None
) -> Prepared:
    """Everything between recognising a unikernel and asking the engine for its monitor's container.

    Leaves in the world only what the record speaks of. Raises the errors of plan, guest and monitor.
    """
    monitor = node.monitors[image.monitor]
    guest = node.guests[image.guest]
    memory = guest_memory(image.memory, rewrite.memory_limit(spec), node.config.guest.memory, monitor.overhead)
    network = await plumb(node, record, image, netns, monitor)
    try:
        interfaces = network.guest if network else ()
        devices: tuple[str, ...] = ("",) * len(interfaces)
        if image.kernel.net_devices is not None:
            devices = name_nics(image.kernel.net_devices, interfaces, image.path)
        nics = tuple(
            Nic(fd=_FIRST_FD + position, tap=tap, mac=interface.mac, mtu=interface.mtu, device=device)
            for position, (interface, tap, device) in enumerate(
                zip(interfaces, network.tap_names if network else (), devices, strict=True)
            )
        )
        words = guest.words(
            GuestSpec(
                arguments=image.arguments,
                environment=rewrite.environment(spec),
                hostname=rewrite.hostname(spec),
                cmdline=image.cmdline,
                interfaces=interfaces,
            )
        )
        launch = await monitor.launch(
            Machine(
                kernel=rewrite.KERNEL,
                memory=memory,
                words=words,
                initrd=rewrite.INITRD if image.initrd else None,
                nics=nics,
            )
        )
        own = node.container_dir(record.namespace, record.container)
        nodes = tuple(await asyncio.to_thread(lambda: [bundle.device(path) for path in launch.devices]))
        files = rewrite.Files(kernel=image.path, initrd=image.initrd)
        rewritten = rewrite.for_monitor(spec, launch, nodes, files, own / "root", netns or "")
        await asyncio.to_thread(bundle.make_monitor_root, own / "root", launch)
        taps = network.take_taps() if network and not launch.by_name else ()
        _log.info(
            "unikernel prepared",
            container=record.container,
            guest=image.guest,
            monitor=image.monitor,
            memory=memory,
            interfaces=[msgspec.to_builtins(interface, builtin_types=()) for interface in interfaces],
        )
        return Prepared(spec=rewritten, launch=launch, taps=taps)
    finally:
        if network is not None:
            network.close()


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors the engine has taken copies of."""
    for descriptor in descriptors:
        os.close(descriptor)
