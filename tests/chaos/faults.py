"""How each fault is done to a site, and undone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc

from tests.chaos import views
from tests.chaos.engine import Trouble
from tests.chaos.operations import netns_of
from tests.chaos.script import Fault, Strike
from tests.chaos.site import Site

_STEPS = 40  # a daemon that is to die at a step of its journals does so at one of so many


def strike(site: Site, what: Strike) -> str:
    """Wait, strike, wait, and lift it; what was done, for people."""
    time.sleep(what.after)
    with _FAULTS[what.fault](site, what.victim) as said:
        time.sleep(what.lasts)
    return f"{what.fault}: {said}"


@contextmanager
def _daemon_killed(site: Site, victim: int) -> Iterator[str]:
    site.end_daemon(signal.SIGKILL)
    yield "SIGKILL"
    site.start_daemon()


@contextmanager
def _daemon_restarted(site: Site, victim: int) -> Iterator[str]:
    site.end_daemon(signal.SIGTERM)
    yield "SIGTERM"
    site.start_daemon()


@contextmanager
def _daemon_mortal(site: Site, victim: int) -> Iterator[str]:
    step = victim % _STEPS + 1
    site.end_daemon(signal.SIGTERM)
    with contextlib.suppress(AssertionError):  # it may be dead before it serves
        site.start_daemon(dies_at=step)
    yield f"at step {step}"
    site.end_daemon(signal.SIGKILL)
    site.start_daemon()


@contextmanager
def _daemon_stopped(site: Site, victim: int) -> Iterator[str]:
    stopped = site.daemons()
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield f"SIGSTOP to {stopped}"
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _containerd_killed(site: Site, victim: int) -> Iterator[str]:
    site.kill_containerd()
    yield "SIGKILL"
    site.start_containerd()


@contextmanager
def _both_killed(site: Site, victim: int) -> Iterator[str]:
    first, second = (site.kill_containerd, lambda: site.end_daemon(signal.SIGKILL))[:: 1 if victim % 2 else -1]
    first()
    second()
    yield "SIGKILL"
    if victim % 3:
        site.start_daemon()
    site.start_containerd()
    site.start_daemon()


@contextmanager
def _reboot(site: Site, victim: int) -> Iterator[str]:
    site.reboot()
    yield "everything ended"
    site.start_daemon()
    site.start_containerd()


@contextmanager
def _monitor_killed(site: Site, victim: int) -> Iterator[str]:
    pid = _monitor(site, victim)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield f"SIGKILL to {pid}"


@contextmanager
def _monitor_stopped(site: Site, victim: int) -> Iterator[str]:
    pid = _monitor(site, victim)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield f"SIGSTOP to {pid}"
    # By its start time it would be certain; pids are not used again within seconds.
    if pid in views.monitors(site.node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _monitor(site: Site, victim: int) -> int:
    """One of those that run, 0 where none does."""
    found = views.monitors(site.node)
    return found[victim % len(found)] if found else 0


@contextmanager
def _netns_deleted(site: Site, victim: int) -> Iterator[str]:
    """A routed pod's: without the namespace the reference bridge plugin's DEL leaves its rules on the node for good."""
    client = site.client(2)
    path = ""
    with contextlib.suppress(grpc.RpcError, ValueError):
        routed = [pod.id for pod in client.pods() if pod.runtime_handler.endswith("-routed")]
        path = netns_of(client, routed[victim % len(routed)]) if routed else ""
    client.close()
    if path and Path(path).parent == site.containerd.state / "netns":
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        with contextlib.suppress(OSError):
            Path(path).unlink()
    yield f"of {path or 'nobody'}"


@contextmanager
def _disk_read_only(site: Site, victim: int) -> Iterator[str]:
    done = site.disk.make_read_only()
    yield "remounted" if done else "could not be: a file was open for writing"
    site.disk.heal()


def _disk(hurt: Callable[[Site], None]) -> Callable[[Site, int], AbstractContextManager[str]]:
    @contextmanager
    def fault(site: Site, victim: int) -> Iterator[str]:
        hurt(site)
        yield "until healed"
        site.disk.heal()

    return fault


def _engine(trouble: Trouble) -> Callable[[Site, int], AbstractContextManager[str]]:
    @contextmanager
    def fault(site: Site, victim: int) -> Iterator[str]:
        site.engine.be(trouble)
        if trouble is Trouble.HANG and victim % 3 == 0:
            time.sleep(2)  # longer than the daemon waits for it
        yield trouble
        site.engine.heal()

    return fault


_FAULTS: dict[Fault, Callable[[Site, int], AbstractContextManager[str]]] = {
    Fault.DAEMON_KILLED: _daemon_killed,
    Fault.DAEMON_RESTARTED: _daemon_restarted,
    Fault.DAEMON_MORTAL: _daemon_mortal,
    Fault.DAEMON_STOPPED: _daemon_stopped,
    Fault.CONTAINERD_KILLED: _containerd_killed,
    Fault.BOTH_KILLED: _both_killed,
    Fault.REBOOT: _reboot,
    Fault.MONITOR_KILLED: _monitor_killed,
    Fault.MONITOR_STOPPED: _monitor_stopped,
    Fault.NETNS_DELETED: _netns_deleted,
    Fault.ENGINE_HANGS: _engine(Trouble.HANG),
    Fault.ENGINE_FAILS: _engine(Trouble.FAIL),
    Fault.ENGINE_LIES: _engine(Trouble.LIE),
    Fault.DISK_FULL: _disk(lambda site: site.disk.fill()),
    Fault.DISK_READ_ONLY: _disk_read_only,
    Fault.DISK_FROZEN: _disk(lambda site: site.disk.freeze()),
}
