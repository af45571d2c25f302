"""A pod's start, its first answer and its end, beside runc's on the same containerd and CNI in the same run."""

from __future__ import annotations

import pytest

from shim.bench.figures import Figure, Goal, turns
from tests.integration.ready import eventually
from tests.performance.answers import Asker
from tests.performance.conftest import Measured
from tests.performance.contenders import LINUX, RUNC, Contender, linux
from tests.performance.place import Place

pytestmark = pytest.mark.timeout(400)

_ROUNDS = 30
_BOOTS = 6


@pytest.mark.figure("start")
def test_a_pods_start_and_end(place: Place, measured: Measured) -> None:
    start = measured.figure(
        "start",
        "RunPodSandbox + CreateContainer + StartContainer",
        peer=RUNC,
        goals={place.smallest.name: (Goal(0.55), Goal(0.75, of="p99"))},
    )
    answer = measured.figure(
        "answer", "The same, to the first answer", peer=RUNC, goals={place.smallest.name: (Goal(1.0),)}
    )
    end = measured.figure(
        "end", "StopPodSandbox + RemovePodSandbox", peer=RUNC, goals={place.smallest.name: (Goal(0.6),)}
    )
    asker = Asker(place.node)
    try:
        for name, contender in turns(_ROUNDS, place.contenders()):
            _live(place, asker, contender, name, start, answer, end)
    finally:
        asker.close()


@pytest.mark.figure("boot")
def test_a_linux_guest(place: Place, measured: Measured) -> None:
    """The largest guest: what is started is a whole Linux, here often without KVM."""
    start = measured.figure("boot.start", "A Linux guest: RunPodSandbox + CreateContainer + StartContainer", peer=RUNC)
    answer = measured.figure("boot.answer", "A Linux guest: the same, to the first answer", peer=RUNC)
    end = measured.figure("boot.end", "A Linux guest: StopPodSandbox + RemovePodSandbox", peer=RUNC)
    guest = linux()
    place.containerd.load(guest.image)
    asker = Asker(place.node)
    try:
        for name, contender in turns(_BOOTS, {RUNC: place.runc, LINUX: guest}):
            _live(place, asker, contender, name, start, answer, end)
    finally:
        asker.close()


def _live(
    place: Place, asker: Asker, contender: Contender, name: str, start: Figure, answer: Figure, end: Figure
) -> None:
    """One pod's life. The first answer is that of the server where there is one, else the guest's own to ARP: while it
    is started, the pod's kernel has stopped to answer in its stead."""
    with answer.timed(name):
        with start.timed(name):
            pod = place.start(contender)
        if contender.port:
            asker.tcp(pod.address, contender.port)
        else:
            asker.arp(pod.address)
    with end.timed(name):
        pod.remove()
    eventually(lambda: not place.containerd.cri.pods(id=pod.id))
