"""The daemon is killed at every step that it writes down: the next one adopts each pod whole or removes it whole.

The steps are counted by a run that lives, then each of them is died at in turn, by the daemon's own fault hook
(shim/faults.py): once before the step is on disk, and so right after what the step before announced was done, and once
after. What comes next is in turn a daemon that somebody starts (systemd), and one that a courier's `delete` starts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from shim import faults
from shim.rpc import unix
from tests.integration import layouts, paths
from tests.integration.conftest import fresh_node
from tests.integration.daemon import Daemon, environment
from tests.integration.doors import Door
from tests.integration.layouts import Site
from tests.integration.leaks import LeakCheck
from tests.integration.life import GUEST, NAMESPACE, Life
from tests.integration.node import Node
from tests.integration.scrape import scraped

pytestmark = pytest.mark.timeout(300)

#: More steps than any life has.
_MANY = 200
_LEFTOVERS = 'unikernel_shim_leftovers_removed_total{kind="'


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with fresh_node("cr") as made:
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with layouts.ALL["bridge"]() as made:
        yield made


def started(node: Node, step: int | None) -> Daemon:
    """A daemon that will die at `step`; with 0 it says its steps, with None it knows of none."""
    env = {} if step is None else {faults.VARIABLE: str(step)}
    daemon = Daemon(node, more='\n[engine]\npath = "runc"\n', env=env)
    daemon.start()
    return daemon


def delete_by_courier(node: Node, daemon: Daemon, life: Life, name: str) -> None:
    """What containerd does about a task whose shim it has lost; the courier starts a daemon."""
    done = subprocess.run(
        node.inside(
            str(paths.COURIER), "-namespace", NAMESPACE, "-id", name, "-bundle", f"{life.base / name}", "delete"
        ),
        env={**os.environ, **environment(daemon.config)},
        cwd=life.base / name,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def end(daemon: Daemon) -> None:
    """Kill a daemon, whoever started it: no containerd takes its events, and it would offer them for a while."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(daemon.ttrpc_socket))
        pid, _ = unix.peer(connection)
    os.kill(pid, signal.SIGKILL)
    with suppress(AssertionError):
        daemon.died()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}/exe"):  # a zombie, whosever child, has none
        assert time.monotonic() < deadline, "the daemon does not end"
        time.sleep(0.01)


def test_killed_at_every_step(node: Node, site: Site) -> None:
    life = Life(node, site)
    untouched = layouts.dump(site.pod)
    daemon = started(node, 0)
    with Door(daemon.socket, NAMESPACE) as door:
        life.live(door)
    steps = [entry for entry in map(json.loads, daemon.log.read_text().splitlines()) if entry.get("event") == "step"]
    end(daemon)
    assert 30 < len(steps) < _MANY, "a life of a pod has some twenty steps, each counted twice"
    removed: set[str] = set()
    with LeakCheck(node, directories=[life.base]) as clean:
        for number in range(1, len(steps) + 1):
            step = f"step {number}: {steps[number - 1]['action']} {steps[number - 1]['key']}"
            removed |= _die_at(number, node, life)
            assert not (lost := layouts.differences(untouched, _settled(site, untouched))), f"{step}: {lost}"
            assert not (left := clean.settled()), f"{step}: {left}"
    assert removed == {"container", "tap", "mount", "disk"}, "what is removed is counted"


def _die_at(number: int, node: Node, life: Life) -> set[str]:
    """Die at a step and have a successor end the life; the kinds of things that it counted as left over."""
    daemon = started(node, number)
    with Door(daemon.socket, NAMESPACE) as door, pytest.raises(grpc.RpcError):
        life.live(door)
    daemon.died()
    # Before and after each step in turn: either kind of successor meets both.
    if number % 4 in (1, 2):
        delete_by_courier(node, daemon, life, GUEST)
    else:
        daemon = started(node, None)
    with Door(daemon.socket, NAMESPACE) as door:
        life.whole(door)
        left = {name for name, many in scraped(daemon).items() if name.startswith(_LEFTOVERS) and many}
        life.end(door)
    end(daemon)
    return {name.removeprefix(_LEFTOVERS).removesuffix('"}') for name in left}


def _settled(site: Site, wanted: dict[str, Any]) -> dict[str, Any]:
    """The pod's namespace once the kernel has taken our devices down."""
    deadline = time.monotonic() + 5
    while (found := layouts.dump(site.pod)) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
