"""A pod's topology, from what is seen of it and the plan by which it was plumbed.

`assemble` is pure; `survey` asks the kernel first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from shim.network.addressing.interfaces import MARK, candidates
from shim.network.kernel.namespace import Namespace
from shim.network.plan import Plan
from shim.network.topology import chains, faults
from shim.network.topology.chains import Holder
from shim.network.topology.model import Chain, Fault, Pod, Topology
from shim.network.topology.planned import Planned, guessed, planned
from shim.network.topology.reading import Question, read_node, read_pod
from shim.network.topology.seen import Beyond, Further, Seen


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whose network it is. `plan` is None where none is known, or nothing is plumbed; `sandbox`, an id, is "" where it
    is not known."""

    sandbox: str = ""
    pod: Pod = Pod()
    plan: Plan | None = None
    holder: Holder = Holder()


async def survey(pod: Namespace, subject: Subject, node: Namespace | None = None) -> Topology:
    """Read the kernel and assemble. `node` is the node's namespace, by default this process's own. Raises NetworkFault
    where the kernel does not say."""
    seen = await read_pod(pod)
    beyond = await read_node(pod, questions(seen, subject.plan), node)
    return assemble(os.fspath(pod.path), subject, seen, beyond)


def questions(seen: Seen, plan: Plan | None) -> tuple[Question, ...]:
    """What is to be asked on the node: of each interface in the picture that is there."""
    told = {nic.index: (nic.address, nic.address6) for nic in plan.nics} if plan is not None else {}
    found: list[Question] = []
    for link in (seen.link(index) for index in _interfaces(seen, plan)):
        if link is None:
            continue
        own = told.get(link.index) or tuple(each.address for each in seen.layout.addresses if each.link == link.index)
        addresses = tuple(address.partition("/")[0] for address in own if address)
        found.append(Question(link=link, further=seen.further.get(link.index, Further()), addresses=addresses))
    return tuple(found)


def assemble(netns: str, subject: Subject, seen: Seen, beyond: Mapping[int, Beyond]) -> Topology:
    """The picture. `beyond` is by the index of the pod's interface, as `questions` asked."""
    plan = subject.plan
    wanted = _plumbed(seen, plan)
    if not wanted:
        links = [link for index in _interfaces(seen, plan) if (link := seen.link(index)) is not None]
        return Topology(
            id=subject.sandbox,
            pod=subject.pod,
            netns=netns,
            plumbed=False,
            now=tuple(chains.plain(link, seen, beyond.get(link.index, Beyond())) for link in links),
        )
    before: list[Chain] = []
    now: list[Chain] = []
    found: list[Fault] = []
    for each in wanted:
        side = beyond.get(each.nic.index, Beyond())
        chain = chains.now(each, seen, side, subject.holder)
        now.append(chain)
        found += faults.find(netns, each, chain, seen, side)
        if each.known:
            before.append(chains.before(each, seen, side))
    return Topology(
        id=subject.sandbox or _marked(seen),
        pod=subject.pod,
        netns=netns,
        plumbed=True,
        before=tuple(before),
        now=tuple(now),
        faults=tuple(found),
        notes=plan.notes if plan is not None else (),
    )


def _plumbed(seen: Seen, plan: Plan | None) -> tuple[Planned, ...]:
    return planned(plan) if plan is not None else guessed(seen)


def _interfaces(seen: Seen, plan: Plan | None) -> tuple[int, ...]:
    """Those of the picture, by index."""
    if wanted := _plumbed(seen, plan):
        return tuple(each.nic.index for each in wanted)
    names = candidates(seen.layout)
    return tuple(link.index for name in names for link in seen.layout.links if link.name == name)


def _marked(seen: Seen) -> str:
    """The sandbox that the namespace's own mark names."""
    aliases = (link.alias for link in seen.layout.links)
    return next((alias.removeprefix(MARK) for alias in aliases if alias.startswith(MARK)), "")
