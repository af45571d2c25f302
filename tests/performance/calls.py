"""Task.State as containerd asks for it, of the daemon and of a runc shim alike, by `caller.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shim.wire import task_v3_pb2, ttrpc_pb2, types_task_pb2
from tests.performance import caller

_NAMESPACE = "k8s.io"  # CRI's


def states(path: Path, container: str, count: int, clients: int = 1) -> list[float]:
    """Microseconds of so many calls, over as many connections as `clients` says. Raises AssertionError where the
    container is not running for whoever answers."""
    request = ttrpc_pb2.Request(
        service="containerd.task.v3.Task",
        method="State",
        payload=task_v3_pb2.StateRequest(id=container).SerializeToString(),
        metadata=[ttrpc_pb2.KeyValue(key="containerd-namespace-ttrpc", value=_NAMESPACE)],
    )
    argv = [sys.executable, "-I", "-S", caller.__file__, str(path), str(count), str(clients)]
    done = subprocess.run(argv, input=request.SerializeToString(), capture_output=True, timeout=60, check=True)
    answer, *took = done.stdout.decode().split()
    response = ttrpc_pb2.Response.FromString(bytes.fromhex(answer))
    assert not response.status.code, response.status.message
    state = task_v3_pb2.StateResponse.FromString(response.payload)
    assert state.status == types_task_pb2.RUNNING, state
    return [float(each) for each in took]


@contextmanager
def together(server: int) -> Iterator[None]:
    """Keep a server's threads, and this process with what it starts, on one processor: then no round trip waits for
    another one to wake up, which takes as long as the call itself, and happens or does not as the scheduler likes."""
    threads = [0, *(int(thread.name) for thread in Path(f"/proc/{server}/task").iterdir())]
    before = os.sched_getaffinity(0)
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {min(before)})
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, before)


def shim_socket(state: Path, sandbox: str) -> Path:
    """Where the shim of a pod listens, as containerd 2.x keeps it (core/runtime/v2, bootstrap.json)."""
    (bundle,) = (state / "io.containerd.runtime.v2.task" / _NAMESPACE).glob(sandbox)
    address = json.loads((bundle / "bootstrap.json").read_text())["address"]
    return Path(str(address).removeprefix("unix://"))
