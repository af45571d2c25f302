"""Whose network is drawn, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shim.errors import WrongState
from shim.guests.base import Dns
from shim.network.kernel.namespace import Namespace, NamespaceGone
from shim.network.plan import Plan
from shim.network.topology.assembling import Subject
from shim.network.topology.chains import Holder
from shim.network.topology.model import Pod, Topology
from shim.sandbox import topology
from shim.sandbox.record import PodPlan
from shim.sandbox.sandbox import Sandbox

NETNS = "/run/netns/x"
PLAN = Plan(sandbox="s", steps=(), nics=())
PLUMBING = PodPlan(netns=NETNS, plan=PLAN, dns=Dns(servers=("192.0.2.53",)))


def sandbox(plumbing: PodPlan | None, netns: str = NETNS) -> Sandbox:
    guest = SimpleNamespace(record=SimpleNamespace(plumbing=plumbing, monitor="qemu"), init=SimpleNamespace(pid=7))
    pod = SimpleNamespace(netns=netns)
    return cast(Sandbox, SimpleNamespace(id="s", pod_name=("default", "web"), pod=pod, unikernel=guest))


@pytest.mark.parametrize(
    ("plumbing", "subject"),
    [
        (
            PLUMBING,
            Subject(
                sandbox="s", pod=Pod(namespace="default", name="web"), plan=PLAN,
                holder=Holder(monitor="qemu", pid=7, dns=("192.0.2.53",)),
            ),
        ),
        (None, Subject(sandbox="s", pod=Pod(namespace="default", name="web"))),
    ],
)  # fmt: skip
async def test_by_which_plan(plumbing: PodPlan | None, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []
    drawn = Topology(id="s", pod=Pod(), netns="", plumbed=False)

    async def open_namespace(path: Path) -> Namespace:
        return cast(Namespace, SimpleNamespace(close=lambda: closed.append(path)))

    async def survey(opened: Any, asked: Subject) -> Topology:
        assert asked == subject and not closed
        return drawn

    monkeypatch.setattr(topology, "open_namespace", open_namespace)
    monkeypatch.setattr(topology, "survey", survey)
    assert await topology.topology_of(sandbox(plumbing)) is drawn
    assert closed == [Path(NETNS)]


async def test_a_pod_without_a_namespace() -> None:
    with pytest.raises(WrongState, match="no network namespace of its own"):
        await topology.topology_of(sandbox(None, netns=""))


async def test_a_pod_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_namespace(path: Path) -> Namespace:
        raise NamespaceGone("there is none", subject=str(path))

    monkeypatch.setattr(topology, "open_namespace", open_namespace)
    with pytest.raises(WrongState, match=f"has ended, and its network namespace {NETNS} is gone"):
        await topology.topology_of(sandbox(PLUMBING))
