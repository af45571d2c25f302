"""What cannot run, through CRI: each time a clear error that names the thing, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.integration import images
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import served

pytestmark = pytest.mark.timeout(90)

KERNEL = {"io.unikernel.kernel": images.KERNEL_PATH}


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd) -> None:
    containerd.load(images.linux(), *images.bad().values())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("no-kernel", "there is no such kernel in the image"),
        ("empty-kernel", "no kernel that is known here"),
        ("text", "no kernel that is known here"),
        ("wrong-machine", "this node is"),
        ("truncated", "truncated or broken ELF"),
        ("symlink-out", "leads out of the image"),
        ("symlink-absolute", "no such kernel"),
        ("directory-link", "leads out of the image"),
    ],
)
def test_an_image_without_a_kernel_that_can_run(
    image: str, words: str, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    with containerd.cri.pod("unikernel") as pod, pytest.raises(grpc.RpcError, match=words):
        pod.run(f"localhost/bad-{image}:test", annotations=KERNEL)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"io.unikernel.monitor": "spt"}, "io.unikernel.monitor.*contradicts"),
        ({"io.unikernel.guest": "solo5"}, "contradicts io.unikernel.guest"),
        ({"io.unikernel.monitor": "xen"}, "not a monitor"),
        ({"io.unikernel.guest": "bsd"}, "not a guest"),
        ({"io.unikernel.memory": "lots"}, "io.unikernel.memory"),
        ({"io.unikernel.kernal": "/x"}, "io.unikernel.kernal.*io.unikernel.kernel"),
        ({"io.unikernel.initrd": "/no/such"}, "no such initrd"),
        ({"io.unikernel.network": "perhaps"}, "io.unikernel.network"),
        ({"io.unikernel.cmdline": "a\nb"}, "line break"),
        ({"io.unikernel.memory": "512"}, "exceed the memory limit"),
    ],
)
def test_annotations_that_make_no_sense(
    annotations: dict[str, str], words: str, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    wanted = {**images.LINUX_ANNOTATIONS, **annotations}
    with containerd.cri.pod("unikernel") as pod, pytest.raises(grpc.RpcError, match=words):
        pod.run(images.LINUX, annotations=wanted, memory=256 << 20)


def test_two_unikernels_in_one_pod(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        first = pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        page = served(node, pod.address)
        with pytest.raises(grpc.RpcError, match=f"already runs the unikernel {first}"):
            pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        assert served(node, pod.address)["boot"] == page["boot"], "the first must not notice"


def test_no_eth0(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        netns = containerd.netns(pod.address)
        rename(netns, "eth0", "net9")
        with pytest.raises(grpc.RpcError, match=r"eth0.*net9"):
            pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        # Without a network it runs all the same, where that is what the pod asks for.
        alone = pod.run(
            images.LINUX,
            annotations={**images.LINUX_ANNOTATIONS, "io.unikernel.network": "none"},
        )
        assert containerd.cri.status(alone).state == containerd.cri.messages.CONTAINER_RUNNING
        rename(netns, "net9", "eth0")


def rename(netns: Path, name: str, new: str) -> None:
    """Rename an interface in a namespace, keeping its configuration out of the way of the kernel's refusals."""
    import subprocess

    for words in (("down",), ("name", new), ("up",)):
        subprocess.run(
            ["nsenter", f"--net={netns}", "ip", "link", "set", new if words == ("up",) else name, *words], check=True
        )


MONITORS = """
[monitors.qemu]
path = "{path}"
accel = "tcg"
"""


def test_a_monitor_that_is_not_installed_or_dies_at_once(tmp_path: Path) -> None:
    """On a node of its own, with daemons configured so."""
    with fresh_node("bad") as node:
        Daemon(node)
        server = Containerd(node)
        with running(server):
            server.load(images.linux())
            refused(node, server, Path("/no/such/qemu"), "is not installed")
            dying = tmp_path / "qemu"
            dying.write_text("#!/bin/sh\necho 'qemu: this machine is too small' >&2\nexit 3\n")
            dying.chmod(0o755)
            tmp_path.chmod(0o755)
            refused(node, server, dying, "died at once with status 3: qemu: this machine is too small")


def refused(node: Node, server: Containerd, monitor: Path, words: str) -> None:
    """A unikernel pod on a node whose QEMU is `monitor` fails with these words and leaves nothing."""
    with (
        running(Daemon(node, more=MONITORS.format(path=monitor))),
        LeakCheck(node, server),
        server.cri.pod("unikernel") as pod,
        pytest.raises(grpc.RpcError, match=words),
    ):
        pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
