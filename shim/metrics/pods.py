"""How many sandboxes and containers there are, and in which state."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from shim.metrics.recorder import KINDS
from shim.sandbox.container import Container
from shim.sandbox.sandbox import Sandbox
from shim.sandbox.state import SandboxStatus, Status


def names(sandbox: Sandbox, container: Container) -> tuple[str, str]:
    """The labels `namespace` and `pod` of what is told of a container: Kubernetes' words for its pod.

    Outside Kubernetes the container's id stands for the pod's name, and containerd's namespace for Kubernetes'.
    """
    namespace, name = sandbox.pod_name
    return (namespace, name) if name else (sandbox.namespace, container.id)


def states(sandboxes: Sequence[Sandbox]) -> Callable[[], Iterable[Metric]]:
    """The numbers by state; a state that nothing is in has 0."""
    of_sandboxes = Counter(sandbox.status for sandbox in sandboxes)
    of_containers = Counter(
        (held.kind, held.init.status) for sandbox in sandboxes for held in sandbox.containers.values()
    )

    def read() -> Iterable[Metric]:
        pods = GaugeMetricFamily("unikernel_shim_sandboxes", "Sandboxes, by state.", labels=("state",))
        for state in SandboxStatus:
            pods.add_metric((state.value,), of_sandboxes[state])
        yield pods
        containers = GaugeMetricFamily(
            "unikernel_shim_containers", "Containers, by kind and the state of their process.", labels=("kind", "state")
        )
        for kind, status in itertools.product(KINDS, Status):
            if status is not Status.DELETED:  # then it is none of any sandbox's
                containers.add_metric((kind, status.value), of_containers[kind, status])
        yield containers

    return read
