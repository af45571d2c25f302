"""What cannot run, through CRI: each time a clear error that names the thing, and nothing left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration import guest, images
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.foreground import eventually
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


def test_no_eth0(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """Whatever its name, the interface is the guest's. Without any, it has no NIC, unless it must."""
    cri = containerd.cri
    with cri.pod("unikernel") as pod, renamed(containerd.netns(pod.address), "eth0", "net9") as interface:
        alone = pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        assert cri.status(alone).state == cri.messages.CONTAINER_RUNNING
        assert eventually(lambda: guest.READY in pod.log(alone), within=30) and "guest: no eth0" in pod.log(alone)
        cri.stop(alone)
        cri.remove(alone)
        for more, words in (({"network": "required"}, "demands a network"), ({"nics": "eth0"}, r"no interface 'eth0'")):
            annotations = {**images.LINUX_ANNOTATIONS, **{f"io.unikernel.{key}": value for key, value in more.items()}}
            with pytest.raises(grpc.RpcError, match=words):
                pod.run(images.LINUX, annotations=annotations)
        interface("up")
        again = pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS)
        assert served(node, pod.address)["address"] == pod.address
        cri.stop(again)
        cri.remove(again)


@contextmanager
def renamed(netns: Path, name: str, new: str) -> Iterator[Callable[[str], None]]:
    """A pod whose interface has another name and is down; gives what sets the interface up or down."""

    def set_link(link: str, *words: str) -> None:
        subprocess.run(["nsenter", f"--net={netns}", "ip", "link", "set", link, *words], check=True)

    set_link(name, "down", "name", new)
    yield lambda state: set_link(new, state)
    set_link(new, "down", "name", name)
    set_link(name, "up")


MONITORS = """
[monitors.qemu]
path = "{path}"
accel = "tcg"
"""


# It says its version, and no more.
DYING = """\
#!/bin/sh
[ "$1" = --version ] && echo 'QEMU emulator version 7.2.0' && exit
echo 'qemu: this machine is too small' >&2
exit 3
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
            dying.write_text(DYING)
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
