"""A sandbox's network as it is: which namespace, by which plan, and whose taps."""

from __future__ import annotations

from pathlib import Path

from shim.errors import WrongState
from shim.network.kernel.namespace import NamespaceGone, open_namespace
from shim.network.topology.assembling import Subject, survey
from shim.network.topology.chains import Holder
from shim.network.topology.model import Pod, Topology
from shim.sandbox.container import Container
from shim.sandbox.description import netns_of
from shim.sandbox.sandbox import Sandbox


async def topology_of(sandbox: Sandbox) -> Topology:
    """Read it from the kernel.

    Raises WrongState where the pod has no network namespace of its own, or none any more, NetworkFault where the kernel
    does not say.
    """
    netns = netns_of(sandbox)
    if not netns:
        raise WrongState("the pod has no network namespace of its own", subject=sandbox.id)
    try:
        opened = await open_namespace(Path(netns))
    except NamespaceGone as error:
        raise WrongState(
            f"the pod has ended, and its network namespace {netns} is gone with it", subject=sandbox.id
        ) from error
    try:
        return await survey(opened, _subject(sandbox, sandbox.unikernel))
    finally:
        opened.close()


def _subject(sandbox: Sandbox, guest: Container | None) -> Subject:
    namespace, name = sandbox.pod_name
    pod = Pod(namespace=namespace, name=name)
    plumbing = guest.record.plumbing if guest is not None else None
    if guest is None or plumbing is None:
        return Subject(sandbox=sandbox.id, pod=pod)
    holder = Holder(monitor=guest.record.monitor, pid=guest.init.pid or 0, dns=plumbing.dns.servers)
    return Subject(sandbox=sandbox.id, pod=pod, plan=plumbing.plan, holder=holder)
