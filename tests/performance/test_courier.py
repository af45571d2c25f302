"""What is run for each container on containerd's `start` path: the courier by itself, and `ctr run` by way of it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shim.bench import measuring
from shim.bench.figures import Goal, turns
from tests.integration import images, paths
from tests.integration.test_ctr import RUNTIME
from tests.performance.conftest import Measured
from tests.performance.place import Place

pytestmark = pytest.mark.timeout(300)

_ROUNDS = 100
_RUNS = 30
_NAMESPACE = "bench"
_RUNC_RUNTIME = "io.containerd.runc.v2"


@pytest.mark.figure("courier")
def test_the_courier(place: Place, measured: Measured) -> None:
    """`start` is what containerd runs for each container; it is the daemon's answer that is waited for."""
    figure = measured.figure(
        "courier", "The courier, start to exit, the daemon up", peer=measuring.BARE, goals={"start": (Goal(2.5),)}
    )
    bundle = place.node.base / "courier"
    bundle.mkdir()
    (bundle / "config.json").write_text('{"ociVersion": "1.0.2"}')
    env = {
        "UNIKERNEL_SHIM_CONFIG": str(place.daemon.config),
        "PATH": "/usr/bin:/bin",
        "TTRPC_ADDRESS": f"{place.containerd.socket}.ttrpc",
    }
    words = ["-namespace", _NAMESPACE, "-address", str(place.containerd.socket), "-id", "courier"]
    contenders = {
        measuring.BARE: measuring.bare(Path(paths.COURIER)),
        "-v": [str(paths.COURIER), "-v"],
        "start": [str(paths.COURIER), *words, "start"],
    }
    for name, argv in turns(_ROUNDS, contenders):
        with figure.timed(name):
            done = subprocess.run(argv, env=env, cwd=bundle, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.figure("ctr")
def test_ctr_run(place: Place, measured: Measured) -> None:
    """A container from its start to its end: `ctr run --rm` of a program that does nothing."""
    ours = "ours, by the courier"
    figure = measured.figure("ctr", "ctr run --rm", peer="runc shim", goals={ours: (Goal(0.7),)})
    place.containerd.load(images.busybox(), namespace=_NAMESPACE)
    numbers = itertools.count()

    def run(runtime: str) -> Callable[[], object]:
        words = ("run", "--rm", "--runtime", runtime, images.BUSYBOX)
        return lambda: place.containerd.ctr(*words, f"run{next(numbers)}", "/bin/echo", namespace=_NAMESPACE)

    contenders = {"runc shim": run(_RUNC_RUNTIME), ours: run(RUNTIME)}
    for call in contenders.values():
        call()
    for name, call in turns(_RUNS, contenders):
        with figure.timed(name):
            call()
