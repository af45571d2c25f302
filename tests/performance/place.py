"""Where pods are measured: a node of their own with a daemon and a containerd, both with the settings of production."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from tests.integration import paths
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.node import Node
from tests.performance import contenders
from tests.performance.contenders import ORDINARY, RUNC, Contender


class Place:
    """The servers, not started: a test's `running` does that, and `prepare` what comes after."""

    def __init__(self, node: Node, program: Sequence[str] = (str(paths.DAEMON),)) -> None:
        """`program` is what the daemon runs as."""
        self.node = node
        self.daemon = Daemon(node, production=True, doubles=contenders.kernel() is None, program=program)
        self.containerd = Containerd(node, level="info", handlers=contenders.peers())
        self.runc, self.smallest = contenders.ordinary(RUNC, "runc"), contenders.smallest()
        self.ordinary = contenders.ordinary(ORDINARY, "unikernel")
        #: runc's fellows that work here, once it is prepared.
        self.others: list[Contender] = []

    def prepare(self, note: Callable[[str], None]) -> None:
        """Load the images, find out which peers work here, and let each contender start once: first times are no
        figure. `note` is told who does not take part."""
        self.containerd.load(self.smallest.image)
        known = contenders.peers()
        offered = {"crun": lambda: contenders.ordinary("crun", "crun"), "urunc": contenders.urunc}
        for name, made in offered.items():
            if name not in known:
                note(f"{name} is not on PATH")
                continue
            try:
                self.start(made()).remove()
            except grpc.RpcError as error:
                note(f"{name} does not work here: {_last_words(error)}")
                self.containerd.cri.remove_everything()
            else:
                self.others.append(made())
        for contender in (self.runc, self.ordinary, self.smallest):
            self.start(contender).remove()

    def start(self, contender: Contender) -> Pod:
        """A pod of the contender's: RunPodSandbox, CreateContainer and StartContainer."""
        pod = contender.sandbox(self.containerd.cri)
        contender.run(pod, self.node.subnet)
        return pod

    def contenders(self) -> dict[str, Contender]:
        """By name: the peer first."""
        return {each.name: each for each in (self.runc, *self.others, self.ordinary, self.smallest)}


def _last_words(error: grpc.RpcError) -> str:
    """An error's end, where the words are of who was last in the chain of those that failed."""
    return str(error.details()).strip().rpartition(": ")[2]
