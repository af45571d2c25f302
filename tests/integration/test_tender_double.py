"""The double of a Solo5 tender does what tests of pods take for granted of it. The real one: test_monitors.py."""

from __future__ import annotations

from tests.integration import tender_double
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node


def test_it_answers_speaks_and_ends(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    containerd.load(tender_double.image())
    cri = containerd.cri
    with cri.pod("unikernel") as pod:
        node.ping(pod.address)
        before = node.neighbour(pod.address)
        words = [f"address={pod.address}", "say=hello", "complain=of nothing", "after=1.5", "exit=3"]
        container = pod.run(tender_double.REFERENCE, args=words)
        assert node.ping(pod.address)
        assert node.neighbour(pod.address) == before
        assert cri.wait_exit(container).exit_code == 3
        assert {"hello", "of nothing"} <= set(pod.log(container).splitlines())
