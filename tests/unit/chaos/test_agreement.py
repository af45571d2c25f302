"""Each way in which the three views of one pod can differ is told; where they agree nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.agreement import (
    Containerd,
    Daemon,
    Group,
    Held,
    Kernel,
    Listed,
    Network,
    Sandbox,
    Task,
    differences,
    without_ghosts,
)

RUNS = Task("running", 7)
CONTAINERD = Containerd({"pod": Sandbox(True, pause=False)}, {"guest": Listed("pod", "running")}, {"guest": RUNS})
DAEMON = Daemon({"pod": "/netns/pod"}, {"guest": Held("pod", RUNS, RUNS, unikernel=True)})
KERNEL = Kernel({"guest": Group(frozenset({7}), False)}, frozenset({"guest"}), {"/netns/pod": Network((), 1)})


def held(task: Task, asked: Task | None = None, *, unikernel: bool = True) -> Daemon:
    return replace(DAEMON, containers={"guest": Held("pod", task, asked or task, unikernel)})


def test_a_pod_that_runs() -> None:
    assert differences(CONTAINERD, DAEMON, KERNEL) == []


def test_nothing_at_all() -> None:
    assert differences(Containerd(), Daemon(), Kernel()) == []


def test_a_pod_whose_container_has_ended() -> None:
    containerd = replace(CONTAINERD, containers={"guest": Listed("pod", "exited")}, tasks={})
    kernel = Kernel(networks={"/netns/pod": Network(("10.0.0.2",), 0)})
    assert differences(containerd, replace(DAEMON, containers={}), kernel) == []


def test_a_pod_that_is_paused() -> None:
    paused = Task("paused", 7)
    kernel = replace(KERNEL, groups={"guest": Group(frozenset({7}), True)})
    assert differences(replace(CONTAINERD, tasks={"guest": paused}), held(paused), kernel) == []


def test_a_pause_container_is_in_no_list_of_containers() -> None:
    containerd = Containerd({"pod": Sandbox(True, pause=True)}, {}, {"pod": RUNS})
    daemon = Daemon({"pod": "/netns/pod"}, {"pod": Held("pod", RUNS, RUNS, unikernel=False)})
    kernel = Kernel(
        {"pod": Group(frozenset({7}), False)}, frozenset({"pod"}), {"/netns/pod": Network(("10.0.0.2",), 0)}
    )
    assert differences(containerd, daemon, kernel) == []


def test_a_stopped_pod_is_kept_by_the_plugin_and_not_by_a_pause_container() -> None:
    daemon = Daemon({"pod": ""})
    assert differences(Containerd({"pod": Sandbox(False, pause=False)}), daemon, Kernel()) == []
    assert differences(Containerd({"pod": Sandbox(False, pause=True)}), daemon, Kernel()) != []


def test_ghosts_are_what_has_ended_and_nobody_else_knows() -> None:
    ghost = Held("gone", Task("stopped", 9), Task("stopped", 9), unikernel=False)
    daemon = Daemon({**DAEMON.pods, "gone": ""}, {**DAEMON.containers, "old": ghost})
    assert without_ghosts(CONTAINERD, daemon) == DAEMON
    alive = replace(ghost, task=RUNS)
    daemon = Daemon({**DAEMON.pods, "gone": ""}, {**DAEMON.containers, "old": alive})
    assert without_ghosts(CONTAINERD, daemon) == daemon
    ended = held(Task("stopped", 7))
    assert without_ghosts(CONTAINERD, ended) == ended


@pytest.mark.parametrize(
    ("containerd", "daemon", "kernel", "word"),
    [
        (replace(CONTAINERD, pods={}), DAEMON, KERNEL, "which CRI has not"),
        (CONTAINERD, Daemon(), Kernel(), "is ready, and the daemon has none"),
        (replace(CONTAINERD, containers={}), DAEMON, KERNEL, "which CRI has not"),
        (CONTAINERD, replace(DAEMON, containers={}), KERNEL, "runs, and the daemon has it not at all"),
        (replace(CONTAINERD, containers={"guest": Listed("pod", "exited")}), DAEMON, KERNEL, "is exited, and"),
        (replace(CONTAINERD, containers={"guest": Listed("other", "running")}), DAEMON, KERNEL, "is of pod other"),
        (replace(CONTAINERD, tasks={}), DAEMON, KERNEL, "containerd has no task"),
        (replace(CONTAINERD, tasks={"guest": Task("running", 8)}), DAEMON, KERNEL, "and the daemon has"),
        (replace(CONTAINERD, tasks={"guest": RUNS, "old": RUNS}), DAEMON, KERNEL, "task old is running"),
        (CONTAINERD, held(RUNS, Task("running", 8)), KERNEL, "State says"),
        (CONTAINERD, DAEMON, replace(KERNEL, groups={}), "is not in its cgroup"),
        (CONTAINERD, DAEMON, replace(KERNEL, groups={"guest": Group(frozenset({7}), True)}), "its cgroup frozen"),
        (CONTAINERD, DAEMON, replace(KERNEL, rootfs=frozenset()), "no root file system"),
        (CONTAINERD, DAEMON, replace(KERNEL, rootfs=frozenset({"guest", "old"})), "file system of old is mounted"),
        (
            CONTAINERD,
            DAEMON,
            replace(KERNEL, groups={**KERNEL.groups, "old": Group(frozenset(), False)}),
            "cgroup of old",
        ),
        (CONTAINERD, DAEMON, replace(KERNEL, networks={}), "is not there"),
        (CONTAINERD, DAEMON, replace(KERNEL, networks={"/netns/pod": Network(("10.0.0.2",), 1)}), "has 10.0.0.2"),
        (CONTAINERD, held(RUNS, unikernel=False), KERNEL, "no address, and no unikernel"),
        (CONTAINERD, DAEMON, replace(KERNEL, networks={"/netns/pod": Network((), 2)}), "2 taps"),
        (
            CONTAINERD,
            DAEMON,
            replace(KERNEL, networks={**KERNEL.networks, "/netns/x": Network((), 0)}),
            "no ready pod's",
        ),
    ],
)
def test_each_difference_is_told(containerd: Containerd, daemon: Daemon, kernel: Kernel, word: str) -> None:
    assert any(word in sentence for sentence in differences(containerd, daemon, kernel))
