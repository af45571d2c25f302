"""CRI's life of pods and containers, as the kubelet relies on it; docs/cri.md says which of cri-tools' cases are here.

Each test is one behaviour, for a unikernel whose monitor is the double of a tender, in both sandboxers where that is
no other test's business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest

from tests.integration import images
from tests.integration.containerd import Containerd
from tests.integration.cri import Client, Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually
from tests.integration.tender_double import REFERENCE, image

SANDBOXERS = ("unikernel", "unikernel-podsandbox")
LABELS = {"app": "cri", "tier": "front"}
ANNOTATIONS = {"example.org/note": "kept as it is"}


@pytest.fixture(scope="module", autouse=True)
def _image(containerd: Containerd) -> None:
    containerd.load(image())


@pytest.fixture(scope="module", params=SANDBOXERS)
def pod(request: pytest.FixtureRequest, containerd: Containerd, clean_module: LeakCheck) -> Iterator[Pod]:
    """A pod that the module's tests share: each removes the containers it makes."""
    with containerd.cri.pod(request.param, labels=LABELS, annotations=ANNOTATIONS) as shared:
        yield shared


@pytest.fixture(params=SANDBOXERS)
def own_pod(
    request: pytest.FixtureRequest, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck
) -> Iterator[Pod]:
    """A pod for one test, which may end it."""
    with containerd.cri.pod(request.param) as made:
        yield made


def test_the_runtime_says_its_version_and_that_it_is_ready(cri: Client) -> None:
    """Version names the API's version, and Status says that runtime and network are ready."""
    assert cri.call("Version").runtime_api_version == "v1"
    conditions = {each.type: each.status for each in cri.call("Status").status.conditions}
    assert conditions["RuntimeReady"] and conditions["NetworkReady"]


def test_a_pod_is_ready_as_soon_as_it_runs(pod: Pod, cri: Client) -> None:
    """RunPodSandbox returns when the pod is ready, has an address and is listed."""
    status = cri.sandbox(pod.id)
    assert status.state == cri.messages.SANDBOX_READY
    assert status.network.ip and status.created_at > 0
    assert pod.id in {each.id for each in cri.pods()}


def test_a_pod_keeps_what_it_was_given(pod: Pod, cri: Client) -> None:
    """Name, uid, namespace, attempt, labels, annotations and handler come back from status and list."""
    (listed,) = cri.pods(id=pod.id)
    for found in (cri.sandbox(pod.id), listed):
        assert found.metadata == pod.config.metadata
        assert dict(found.labels) == LABELS and dict(found.annotations) == ANNOTATIONS
        assert found.runtime_handler in SANDBOXERS


def test_pods_are_listed_by_id_state_and_labels(pod: Pod, cri: Client) -> None:
    """A list holds what every part of its filter fits, and nothing else."""
    ready, not_ready = {"state": cri.messages.SANDBOX_READY}, {"state": cri.messages.SANDBOX_NOTREADY}
    assert [each.id for each in cri.pods(id=pod.id, state=ready, label_selector=LABELS)] == [pod.id]
    assert cri.pods(id=pod.id, state=not_ready) == []
    assert cri.pods(id=pod.id, label_selector={"app": "another"}) == []


def test_a_stopped_pod_is_not_ready_and_still_listed(own_pod: Pod, cri: Client) -> None:
    """StopPodSandbox ends the unikernel and frees the address; pod and container are known until they are removed."""
    container = own_pod.run(REFERENCE)
    own_pod.stop()
    assert cri.sandbox(own_pod.id).state == cri.messages.SANDBOX_NOTREADY
    assert [each.id for each in cri.pods(id=own_pod.id)] == [own_pod.id]
    status = cri.status(container)
    assert status.state == cri.messages.CONTAINER_EXITED and status.finished_at > status.started_at


def test_a_removed_pod_is_known_no_more(own_pod: Pod, cri: Client) -> None:
    """RemovePodSandbox of a pod that runs ends it, and takes its containers with it."""
    container = own_pod.run(REFERENCE)
    cri.call("RemovePodSandbox", cri.messages.RemovePodSandboxRequest(pod_sandbox_id=own_pod.id))
    assert cri.pods(id=own_pod.id) == [] and cri.containers(id=container) == []
    for asked, id in ((cri.sandbox, own_pod.id), (cri.status, container)):
        with pytest.raises(grpc.RpcError) as refused:
            asked(id)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_stopping_and_removing_a_pod_can_be_repeated(own_pod: Pod, cri: Client) -> None:
    """Both succeed for a pod that is stopped, removed, or never was."""
    own_pod.run(REFERENCE)
    for _ in range(2):
        own_pod.stop()
    for _ in range(2):
        own_pod.remove()
    for method in ("StopPodSandbox", "RemovePodSandbox"):
        cri.call(method, getattr(cri.messages, f"{method}Request")(pod_sandbox_id="nobody"))


def test_nothing_runs_in_a_stopped_or_unknown_pod(own_pod: Pod, cri: Client) -> None:
    """In a stopped pod a container can be described and not started; in an unknown one not even that."""
    own_pod.stop()
    container = own_pod.create(REFERENCE)
    with pytest.raises(grpc.RpcError, match="is not running"):
        cri.start(container)
    assert cri.status(container).state != cri.messages.CONTAINER_RUNNING
    with pytest.raises(grpc.RpcError) as refused:
        Pod(cri, "nobody", "nobody", own_pod.config, "").create(REFERENCE)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_container_is_created_and_then_started(pod: Pod, cri: Client) -> None:
    """Created it has not started; started it runs, and says since when."""
    with pod.created(REFERENCE) as container:
        status = cri.status(container)
        assert status.state == cri.messages.CONTAINER_CREATED
        assert status.created_at > 0 and status.started_at == status.finished_at == 0
        cri.start(container)
        status = cri.status(container)
        assert status.state == cri.messages.CONTAINER_RUNNING
        assert status.started_at >= status.created_at and status.finished_at == 0


def test_a_container_keeps_what_it_was_given(pod: Pod, cri: Client) -> None:
    """Name, attempt, image, labels, annotations and the log's path come back from status and list."""
    with pod.created(REFERENCE, name="kept", attempt=3, labels=LABELS, annotations=ANNOTATIONS) as container:
        status = cri.status(container)
        (listed,) = cri.containers(id=container)
        for found in (status, listed):
            assert (found.metadata.name, found.metadata.attempt) == ("kept", 3)
            assert dict(found.labels) == LABELS and dict(found.annotations) == ANNOTATIONS
            assert found.image.image == REFERENCE
        assert listed.pod_sandbox_id == pod.id
        assert status.log_path == f"{pod.config.log_directory}/kept/3.log"


def test_containers_are_listed_by_id_pod_state_and_labels(pod: Pod, cri: Client) -> None:
    """A list holds what every part of its filter fits, and nothing else."""
    created, running = {"state": cri.messages.CONTAINER_CREATED}, {"state": cri.messages.CONTAINER_RUNNING}
    with pod.created(REFERENCE, labels=LABELS) as container, pod.running(images.BUSYBOX) as sidecar:
        assert {each.id for each in cri.containers(pod_sandbox_id=pod.id)} == {container, sidecar}
        assert [each.id for each in cri.containers(pod_sandbox_id=pod.id, state=running)] == [sidecar]
        assert [each.id for each in cri.containers(id=container, state=created, label_selector=LABELS)] == [container]
        assert cri.containers(id=container, label_selector={"tier": "back"}) == []
        assert cri.containers(pod_sandbox_id="nobody") == []


def test_a_container_starts_once(pod: Pod, cri: Client) -> None:
    """StartContainer fails for one that runs and for one that has ended, and changes neither."""
    with pod.running(REFERENCE) as container:
        with pytest.raises(grpc.RpcError, match="CONTAINER_RUNNING"):
            cri.start(container)
        assert cri.status(container).state == cri.messages.CONTAINER_RUNNING
        cri.stop(container)
        with pytest.raises(grpc.RpcError, match="CONTAINER_EXITED"):
            cri.start(container)


def test_a_name_and_attempt_are_taken_once(pod: Pod, cri: Client) -> None:
    """A second container of the same name and attempt is refused until the first is removed."""
    with pod.created(REFERENCE, name="only"), pytest.raises(grpc.RpcError, match="reserved"):
        pod.create(REFERENCE, name="only")
    with pod.created(REFERENCE, name="only"):
        pass


@pytest.mark.parametrize(("word", "code", "reason"), [("exit=0", 0, "Completed"), ("exit=3", 3, "Error")])
def test_a_unikernel_that_ends_says_how(word: str, code: int, reason: str, pod: Pod, cri: Client) -> None:
    """Its exit code is the monitor's, its reason Completed for 0 and Error for any other."""
    with pod.running(REFERENCE, args=["after=0.3", word]) as container:
        status = cri.wait_exit(container)
        assert (status.exit_code, status.reason) == (code, reason)
        assert status.finished_at > status.started_at > 0


def test_a_stopped_container_has_exited(pod: Pod, cri: Client) -> None:
    """StopContainer's SIGTERM ends the monitor at once, whatever grace there is: 128 and the signal's number."""
    with pod.running(REFERENCE) as container:
        begun = time.monotonic()
        cri.stop(container, grace=30)
        assert time.monotonic() - begun < 5
        status = cri.status(container)
        assert (status.state, status.exit_code) == (cri.messages.CONTAINER_EXITED, 143)
        assert status.finished_at >= status.started_at


@pytest.mark.parametrize("grace", [0, 1])
def test_what_ignores_sigterm_is_killed_after_the_grace(grace: int, pod: Pod, cri: Client) -> None:
    """StopContainer waits as long as it was told and no longer, then kills: 137."""
    with pod.running(REFERENCE, args=["term=ignore", "say=here"]) as container:
        eventually(lambda: pod.log(container) == "here")
        begun = time.monotonic()
        cri.stop(container, grace=grace)
        assert grace <= time.monotonic() - begun < grace + 5
        assert cri.status(container).exit_code == 137


def test_a_container_is_removed_in_any_state(pod: Pod, cri: Client) -> None:
    """RemoveContainer takes one that was created, one that runs, which it ends, and one that has ended."""
    for states in (("created",), ("created", "running"), ("created", "running", "exited")):
        container = pod.create(REFERENCE)
        if "running" in states:
            cri.start(container)
        if "exited" in states:
            cri.stop(container)
        cri.remove(container)
        assert cri.containers(id=container) == []


def test_stopping_and_removing_a_container_can_be_repeated(pod: Pod, cri: Client) -> None:
    """Both succeed for a container that has ended, is removed, or never was."""
    container = pod.run(REFERENCE)
    for _ in range(2):
        cri.stop(container)
    for _ in range(2):
        cri.remove(container)
    for repeated in (cri.stop, cri.remove):
        repeated("nobody")


def test_the_next_attempt_is_a_container_of_its_own(pod: Pod, node: Node, cri: Client) -> None:
    """A restart is a new id with the next attempt, at the pod's address; the former one keeps its exit and its log."""
    with pod.running(REFERENCE, name="again", args=["say=one", "exit=4", "after=0.3"]) as first:
        assert cri.wait_exit(first).exit_code == 4
        words = [f"address={pod.address}", "say=two"]
        with pod.running(REFERENCE, name="again", attempt=1, args=words) as second:
            assert node.ping(pod.address)
            assert cri.status(second).metadata.attempt == 1 and cri.status(first).exit_code == 4
            assert (pod.log(first), pod.log(second)) == ("one", "two")


def test_the_containers_of_a_pod_share_its_network(pod: Pod, cri: Client) -> None:
    """Two sidecars reach each other at localhost, beside the unikernel, which has the pod's address."""
    serve = "echo shared > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    with (
        pod.running(REFERENCE, args=[f"address={pod.address}"]),
        pod.running(images.BUSYBOX, command=["/bin/sh", "-c", serve]),
        pod.running(images.BUSYBOX, command=["/bin/sleep", "600"]) as asking,
    ):
        script = "until fetch 127.0.0.1 / 8080; do sleep 0.05; done"
        assert cri.exec(asking, "/bin/sh", "-c", script).stdout.strip() == "shared"


def test_the_containers_of_a_pod_have_logs_of_their_own(pod: Pod, cri: Client) -> None:
    """What the unikernel and a sidecar say is not mixed."""
    with (
        pod.running(REFERENCE, args=["say=the unikernel", "after=0.3"]) as container,
        pod.running(images.BUSYBOX, command=["/bin/echo", "the sidecar"]) as sidecar,
    ):
        cri.wait_exit(container)
        cri.wait_exit(sidecar)
        assert (pod.log(container), pod.log(sidecar)) == ("the unikernel", "the sidecar")
