"""A call that does nothing but ask: Task.State over ttrpc, of the daemon and of a runc shim by the same client."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from shim.bench.figures import Goal, turns
from tests.performance.calls import shim_socket, states, together
from tests.performance.conftest import Measured
from tests.performance.place import Place
from tests.performance.processes import RUNC_SHIM, running

pytestmark = [pytest.mark.timeout(300), pytest.mark.figure("state")]

_ROUNDS = 12
_CALLS = 1000


@pytest.mark.parametrize(
    ("key", "clients", "words"),
    [
        ("1", 1, "1 client"),
        ("together", 1, "1 client, all on one processor"),
        ("64", 64, "64 clients"),
    ],
)
def test_state(place: Place, measured: Measured, key: str, clients: int, words: str) -> None:
    figure = measured.figure(
        f"state.{key}",
        f"Task.State over ttrpc, {words}",
        "us",
        peer="runc shim",
        goals={"daemon": (Goal(1.5), Goal(1.0, of="p99"))},
    )
    with place.start(place.runc) as theirs, place.start(place.ordinary) as ours:
        (shim,) = running(RUNC_SHIM, theirs.id)
        contenders = {
            "runc shim": (shim_socket(place.containerd.state, theirs.id), theirs.containers[0], shim),
            "daemon": (place.daemon.ttrpc_socket, ours.containers[0], place.daemon.pid),
        }
        for contender, (socket, container, pid) in turns(_ROUNDS, contenders):
            with together(pid) if key == "together" else nullcontext():
                figure.add(contender, *states(socket, container, _CALLS, clients))
