"""Many pods at once, as a node that starts has them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.integration.cri import Pod
from tests.performance.contenders import Contender
from tests.performance.place import Place

AT_ONCE = 16


def start(place: Place, contender: Contender, count: int) -> tuple[list[Pod], list[float], float]:
    """So many pods, sixteen at a time; how many milliseconds each took, and all of them."""

    def one(_: int) -> tuple[Pod, float]:
        began = time.perf_counter()
        pod = place.start(contender)
        return pod, (time.perf_counter() - began) * 1000

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = list(threads.map(one, range(count)))
    whole = (time.perf_counter() - began) * 1000
    return [pod for pod, _ in made], [took for _, took in made], whole


def remove(pods: list[Pod]) -> float:
    """All of them, sixteen at a time; milliseconds."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(Pod.remove, pods))
    return (time.perf_counter() - began) * 1000
