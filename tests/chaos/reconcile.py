"""What a kubelet does about what it finds: each pod is made whole, or removed. It tries until that is so.

containerd shows a container as exited with 255 where its Wait broke, as when the daemon ended. A kubelet then starts
the container's next life in the pod, or makes a new sandbox where the pod is not ready; so does this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.chaos.operations import Kubelet, Refused
from tests.chaos.site import Site
from tests.integration.cri import Client

_PATIENCE = 10.0  # seconds for one call
_AGAIN = 0.8  # seconds between two attempts, at most


class NotReconciled(AssertionError):
    """A pod could be neither made whole nor removed in time."""


def everything(site: Site, kubelets: Iterable[Kubelet], removed: frozenset[str], *, within: float) -> None:
    """Make every pod whole but those `removed`. Raises NotReconciled with the last refusals."""
    kubelets = list(kubelets)
    deadline = time.monotonic() + within
    _until(lambda: _forget_strangers(site, kubelets), deadline)

    def one(kubelet: Kubelet) -> str:
        step = _remove if kubelet.plan.name in removed else _make_whole
        try:
            _until(lambda: _with_client(site, lambda client: step(kubelet, client)), deadline)
        except NotReconciled as error:
            return f"{kubelet.plan.name}: {error}"
        return ""

    with ThreadPoolExecutor(max(1, len(kubelets))) as pool:
        refusals = [refusal for refusal in pool.map(one, kubelets) if refusal]
    if refusals:
        raise NotReconciled("\n".join(refusals))


def _until(step: Callable[[], None], deadline: float) -> None:
    pause = 0.05  # it doubles, as a kubelet's back-off does
    while True:
        try:
            step()
            return
        except (grpc.RpcError, Refused, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise NotReconciled(_words(error)) from error
        time.sleep(pause)
        pause = min(2 * pause, _AGAIN)


def _words(error: Exception) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)


def _with_client(site: Site, step: Callable[[Client], None]) -> None:
    client = site.client(_PATIENCE)
    try:
        step(client)
    finally:
        client.close()


def _forget_strangers(site: Site, kubelets: list[Kubelet]) -> None:
    """Sandboxes of calls that were given up or broke: a kubelet knows a sandbox by its list alone."""
    known = {kubelet.pod.id for kubelet in kubelets if kubelet.pod is not None}

    def step(client: Client) -> None:
        for pod in client.pods():
            if pod.id not in known:
                _end(client, pod.id)

    _with_client(site, step)


def _end(client: Client, pod: str) -> None:
    pb = client.messages
    client.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=pod))
    client.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=pod))


def _remove(kubelet: Kubelet, client: Client) -> None:
    _resume(kubelet, client)
    for pod in client.pods():
        if kubelet.pod is not None and pod.id == kubelet.pod.id:
            _end(client, pod.id)
    kubelet.pod, kubelet.lives = None, {}


def _make_whole(kubelet: Kubelet, client: Client) -> None:
    pb = client.messages
    present = {pod.id: pod.state for pod in client.pods()}
    pod = kubelet.pod
    ready = pod is not None and present.get(pod.id) == pb.SANDBOX_READY and client.sandbox(pod.id).network.ip
    if pod is None or not ready or _has_strangers(kubelet, client, pod.id):
        _remove(kubelet, client)
        kubelet.run_pod(client)
    assert kubelet.pod is not None
    kubelet.pod.client = client
    _resume(kubelet, client)
    for name in kubelet.plan.containers:
        _let_run(kubelet, client, name)
    # Former lives.
    for each in client.containers():
        if each.pod_sandbox_id == kubelet.pod.id and each.id not in kubelet.lives.values():
            client.remove(each.id)


def _has_strangers(kubelet: Kubelet, client: Client, pod: str) -> bool:
    """Whether a container is in the pod that is not in its plan: a second unikernel that was there first."""
    names = {each.metadata.name for each in client.containers() if each.pod_sandbox_id == pod}
    return not names <= set(kubelet.plan.containers)


def _let_run(kubelet: Kubelet, client: Client, name: str) -> None:
    assert kubelet.pod is not None
    states = {each.id: each.state for each in client.containers()}
    life = kubelet.lives.get(name, "")
    if states.get(life) == client.messages.CONTAINER_RUNNING:
        return
    if states.get(life) == client.messages.CONTAINER_UNKNOWN:
        client.stop(life, grace=0)
    client.start(kubelet.create(name))


def _resume(kubelet: Kubelet, client: Client) -> None:
    """Nobody but this suite pauses, and what is frozen cannot be stopped."""
    if kubelet.pod is None:
        return
    tasks = kubelet.ctr("task", "ls", timeout=_PATIENCE).splitlines()
    paused = {line.split()[0] for line in tasks if line.rstrip().endswith("PAUSED")}
    for life in kubelet.lives.values():
        if life in paused:
            kubelet.ctr("task", "resume", life, timeout=_PATIENCE)
