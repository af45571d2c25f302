"""A call that does nothing but ask: Task.State over ttrpc, of the daemon and of a runc shim by the same client."""

from __future__ import annotations

import pytest

from tests.performance.calls import shim_socket, states
from tests.performance.conftest import Measured
from tests.performance.figures import Goal, turns
from tests.performance.place import Place

pytestmark = [pytest.mark.timeout(300), pytest.mark.figure("state")]

_ROUNDS = 12
_CALLS = 1000


@pytest.mark.parametrize("clients", [1, 64])
def test_state(place: Place, measured: Measured, clients: int) -> None:
    name = "1 client" if clients == 1 else f"{clients} clients"
    figure = measured.figure(
        f"state.{clients}",
        f"Task.State over ttrpc, {name}",
        "us",
        peer="runc shim",
        goals={"daemon": (Goal(1.5), Goal(1.0, of="p99"))},
    )
    with place.start(place.runc) as theirs, place.start(place.ordinary) as ours:
        contenders = {
            "runc shim": (shim_socket(place.containerd.state, theirs.id), *theirs.containers),
            "daemon": (place.daemon.ttrpc_socket, *ours.containers),
        }
        for socket, container in contenders.values():
            states(socket, container, _CALLS, clients)
        for contender, (socket, container) in turns(_ROUNDS, contenders):
            figure.add(contender, *states(socket, container, _CALLS, clients))
