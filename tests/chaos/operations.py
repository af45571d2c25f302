"""The kubelet's part: one pod's calls, as a script says them, and what became of each."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.chaos.script import GUEST, Expected, Operation, PodPlan, Verb
from tests.chaos.site import Site
from tests.integration import images, tender_double
from tests.integration.cri import Client, Pod

_GRACE = 1  # seconds between a container's SIGTERM and its SIGKILL
_EXIT = 5.0  # seconds until CRI has heard of a kill


class Refused(Exception):
    """An operation did not succeed; its text is the reason."""


@dataclass
class Outcome:
    """`refusal` is empty for a success."""

    pod: str
    operation: Operation
    refusal: str
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether it is what must become of it where nothing interferes."""
        expected = self.operation.expected
        return expected is Expected.EITHER or (expected is Expected.SUCCESS) == (not self.refusal)

    def __str__(self) -> str:
        return f"{self.pod}: {self.operation}: {self.refusal or 'done'} ({self.seconds:.2f} s)"


@dataclass
class Kubelet:
    """What it knows of one pod. Only one thread uses it at a time."""

    site: Site
    plan: PodPlan
    pod: Pod | None = None
    #: The newest life of each container, by name.
    lives: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    sandboxes: int = 0

    def perform(self, operation: Operation) -> Outcome:
        """Do it, whatever comes of it."""
        began = time.monotonic()
        client = self.site.client(operation.patience)
        if self.pod is not None:
            self.pod.client = client
        refusal = ""
        try:
            self._perform(client, operation)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            refusal = f"{code.name}: {details}"
        except (Refused, TimeoutError, subprocess.TimeoutExpired) as error:
            refusal = str(error)
        finally:
            client.close()
        return Outcome(self.plan.name, operation, refusal, time.monotonic() - began)

    def _perform(self, client: Client, operation: Operation) -> None:
        name = operation.container
        match operation.verb:
            case Verb.RUN_POD:
                self.run_pod(client)
            case Verb.STOP_POD:
                self._known().stop()
            case Verb.REMOVE_POD:
                self._known().remove()
            case Verb.SECOND_GUEST:
                self._known().run(tender_double.REFERENCE, name="second", attempt=self._attempt("second"))
            case Verb.CREATE:
                self.create(name)
            case Verb.RUN:
                self.create(name)
                client.start(self._life(name))
            case Verb.BEGIN:
                client.start(self._life(name))
            case Verb.STOP:
                client.stop(self._life(name), grace=_GRACE)
            case Verb.REMOVE:
                client.remove(self._life(name))
            case Verb.EXEC:
                client.exec(self._life(name), "/bin/echo", "hello")
            case Verb.STATS:
                client.call("ContainerStats", client.messages.ContainerStatsRequest(container_id=self._life(name)))
            case Verb.PAUSE:
                self.ctr("task", "pause", self._life(name), timeout=operation.patience)
            case Verb.RESUME:
                self.ctr("task", "resume", self._life(name), timeout=operation.patience)
            case Verb.KILL:
                self.ctr("task", "kill", "--signal", "SIGKILL", self._life(name), timeout=operation.patience)
                client.wait_exit(self._life(name), timeout=_EXIT)
            case Verb.PING:
                if not self.site.node.ping(self._known().address):
                    raise Refused(f"{self._known().address} does not answer")

    def run_pod(self, client: Client) -> None:
        """A new sandbox of the pod. Raises grpc.RpcError."""
        self.pod, self.lives = None, {}
        self.sandboxes += 1
        self.pod = client.pod(self.plan.handler, name=f"{self.plan.name}-{self.sandboxes}")

    def create(self, name: str) -> str:
        """The next life of a container, created. Raises grpc.RpcError, Refused."""
        pod = self._known()
        options: dict[str, Any] = {"command": ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"]}
        image = images.BUSYBOX
        if name == GUEST:
            image = tender_double.REFERENCE
            words = [f"address={pod.address}", *(["term=ignore"] if self.plan.stubborn else [])]
            options = {"args": words}
        self.lives[name] = pod.create(image, name=name, attempt=self._attempt(name), **options)
        return self.lives[name]

    def ctr(self, *words: str, timeout: float) -> str:
        """`ctr` in CRI's namespace. Raises Refused with what it said."""
        try:
            return self.site.containerd.ctr(*words, timeout=timeout)
        except AssertionError as error:
            raise Refused(str(error).partition("\n---")[0].strip().rpartition("\n")[2]) from None

    def _attempt(self, name: str) -> int:
        self.attempts[name] = self.attempts.get(name, -1) + 1
        return self.attempts[name]

    def _known(self) -> Pod:
        if self.pod is None:
            raise Refused("there is no such pod")
        return self.pod

    def _life(self, name: str) -> str:
        self._known()
        try:
            return self.lives[name]
        except KeyError:
            raise Refused(f"{name} was not created") from None


def netns_of(client: Client, pod: str) -> str:
    """The path of a sandbox's network namespace, "" where nobody says. Raises grpc.RpcError."""
    request = client.messages.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    info = client.call("PodSandboxStatus", request).info
    if "netns" in info:  # our Controller's
        return str(info["netns"])
    specification = json.loads(info.get("info", "{}")).get("runtimeSpec") or {}
    namespaces = specification.get("linux", {}).get("namespaces", [])
    return next((str(each.get("path", "")) for each in namespaces if each["type"] == "network"), "")
