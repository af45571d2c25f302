"""A round on a site: its acts, what is compared after each, and what is left at its end."""

from __future__ import annotations

import functools
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos import faults, known, reconcile, views
from tests.chaos.operations import Kubelet, Outcome
from tests.chaos.script import GUEST, Act, Fault, Round
from tests.chaos.site import Site
from tests.integration import paths
from tests.integration.leaks import GRACE, LeakCheck

#: Seconds in which a kubelet makes its pods whole: containerd's connection to a daemon that was away comes back only
#: after a while.
RECONCILED = 30.0
#: Seconds in which the three views agree: exits are told, and events travel.
AGREED = 8.0

#: The servers may be other processes than before, and a courier's daemon writes a log and a lock. containerd leaves the
#: directory of a task whose shim it could not reach until its own next start.
_NOT_OURS = re.compile(
    r"process .*(/unikernel-shim serve|/containerd --config .*)$"
    r"|file .*/io\.containerd\.runtime\.v2\.task/|file .*/run/(lock|lost\+found)$"
)


class Broken(AssertionError):
    """A round has failed; its text says all that is known."""


class Teller:
    """What happened, in order, by whom, since when; many threads tell."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.lines: list[str] = []

    def __call__(self, line: object) -> None:
        with self._lock:
            self.lines.append(f"  {time.monotonic() - self._began:7.2f} {line}")


def play(site: Site, script: Round) -> Teller:
    """Raises Broken with the story so far."""
    tell = Teller()
    # Of a former round nothing is left, so its ids need not be looked for.
    site.containerd.cri.made.clear()
    site.own_daemon()
    leaks = LeakCheck(site.node, site.containerd)
    leaks.__enter__()
    kubelets = {plan.name: Kubelet(site, plan) for plan in script.pods}
    try:
        for plan in script.pods:
            tell(f"plan {plan}")
        for number, act in enumerate(script.acts):
            tell(f"act {number}")
            _act(site, kubelets, act, struck_in(script, number + 1), tell)
        _end(site, kubelets, struck_in(script), tell)
        _nothing_left(site, script, leaks, tell)
    except Exception as error:
        story = "\n".join(tell.lines)
        again = f"again: make chaos SEED={script.seed} ROUND={script.number}"
        raise Broken(f"{type(error).__name__}: {error}\n{story}\nlogs: {_keep(site, script)}\n{again}") from error
    return tell


def struck_in(script: Round, acts: int | None = None) -> frozenset[Fault]:
    """The faults of a round's first acts, of all by default."""
    return frozenset(strike.fault for act in script.acts[:acts] for strike in act.strikes)


def _keep(site: Site, script: Round) -> Path:
    """Put the servers' logs where they outlive the site; the directory."""
    directory = paths.CACHE / "chaos" / f"{script.seed}-{script.number}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for log in (site.daemon.log, site.containerd.log):
        shutil.copy(log, directory)
    # Of a daemon that a courier started.
    for log in site.disk.point.glob("*.log"):
        shutil.copy(log, directory / f"courier-{log.name}")
    return directory


def _act(
    site: Site, kubelets: dict[str, Kubelet], act: Act, so_far: frozenset[Fault], tell: Callable[[object], None]
) -> None:
    def perform(name: str) -> list[Outcome]:
        outcomes = []
        for operation in act.operations[name]:
            outcomes.append(kubelets[name].perform(operation))
            tell(outcomes[-1])
        return outcomes

    with ThreadPoolExecutor(len(kubelets) + len(act.strikes)) as pool:
        striking = [pool.submit(faults.strike, site, strike) for strike in act.strikes]
        performing = {name: pool.submit(perform, name) for name in kubelets}
        for strike in striking:
            tell(strike.result())
        outcomes = {name: done.result() for name, done in performing.items()}
    site.heal()
    if act.calm:
        wrong = [
            str(outcome)
            for name, done in outcomes.items()
            if not act.hurried(name)
            for outcome in done
            if not outcome.as_expected
        ]
        assert not wrong, "not as expected, where nothing interfered:\n" + "\n".join(wrong)
        if not any(act.hurried(name) for name in kubelets):
            _agree(site, "before the kubelet looks", tell, struck=so_far)
    look = functools.partial(_look, site, kubelets, act.removed)
    _agree(site, "once the kubelet has looked", tell, look, struck=so_far)
    serving = {
        name: kubelet.pod.address
        for name, kubelet in kubelets.items()
        if kubelet.pod is not None and GUEST in kubelet.lives
    }
    unreached = views.unreached(site, serving)
    assert not unreached, "\n".join(unreached)


def _look(site: Site, kubelets: dict[str, Kubelet], removed: frozenset[str]) -> None:
    reconcile.everything(site, kubelets.values(), removed, within=RECONCILED)


def _agree(
    site: Site,
    when: str,
    tell: Callable[[object], None],
    meanwhile: Callable[[], None] = lambda: None,
    *,
    struck: frozenset[Fault],
) -> None:
    """`meanwhile` is done before each look: a kubelet looks again and again. A pod may end while it does, as when a
    courier that containerd began before its own end does its work after it. `struck` is what went wrong before."""
    late = not known.UNTIL_RESTART.keys().isdisjoint(struck)
    found = _disagreements(site, meanwhile, within=AGREED / 4 if late else AGREED)
    if found and late:
        tell("left to the next daemon: " + "; ".join(found))
        _restart(site)
        found = _disagreements(site, meanwhile, within=AGREED, ghosts=not known.GHOSTS.keys().isdisjoint(struck))
    assert not found, f"the three views do not agree {when}:\n" + "\n".join(found)
    tell(f"agreed, {when}")


def _disagreements(site: Site, meanwhile: Callable[[], None], *, within: float, ghosts: bool = False) -> list[str]:
    deadline = time.monotonic() + within
    while True:
        meanwhile()
        found = views.disagreements(site, ghosts=ghosts)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _restart(site: Site) -> None:
    site.end_daemon(signal.SIGTERM)
    site.start_daemon()


def _end(site: Site, kubelets: dict[str, Kubelet], struck: frozenset[Fault], tell: Callable[[object], None]) -> None:
    look = functools.partial(_look, site, kubelets, frozenset(kubelets))
    _agree(site, "that nothing is left", tell, look, struck=struck)


def _nothing_left(site: Site, script: Round, leaks: LeakCheck, tell: Callable[[object], None]) -> None:
    left = _settled(leaks)
    faults_so_far = struck_in(script)
    if left and not known.UNTIL_RESTART.keys().isdisjoint(faults_so_far) and _only_files(site, left):
        tell(f"left to the next daemon: {len(left)} files")
        _restart(site)
        left = _settled(leaks)
    if left and not known.GHOSTS.keys().isdisjoint(faults_so_far) and _only_files(site, left):
        tell(f"left to the machine's next start: {len(left)} files")
        site.reboot()
        site.heal()
        left = _settled(leaks)
    assert not left, "left behind:\n" + "\n".join(left)
    tell("nothing is left")


def _only_files(site: Site, left: list[str]) -> bool:
    return all(line.startswith(f"file {site.daemon.run_dir}/") for line in left)


def _settled(leaks: LeakCheck) -> list[str]:
    """What is new and ours, once that is nothing or has had its time."""
    deadline = time.monotonic() + GRACE
    while True:
        left = [line for line in leaks.new() if not _NOT_OURS.search(line)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
