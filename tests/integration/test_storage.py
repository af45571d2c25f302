"""A real Linux guest under QEMU on real containerd, and what it has of its container's storage: read back from inside.

Each way into a guest is in one of a few boots; what is refused takes none. Images themselves, without a guest, are in
test_storage_images.py.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration import guest, images, tender_double
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.doors import Door
from tests.integration.images import Image, Symlink
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually, served

pytestmark = pytest.mark.timeout(90)

STORAGE = "localhost/storage:test"
#: The image without an initrd: its files are the guest's user space.
TREE = "localhost/storage-tree:test"
#: With the kernel that has 9p.
SHARES = "localhost/storage-shares:test"
DISKS = "localhost/solo5-disks:test"
LINUX = images.LINUX_ANNOTATIONS
_MIB = 1 << 20


def content(name: str, size: int = 300_000) -> bytes:
    """Bytes that only this name has."""
    return random.Random(name).randbytes(size)


def disk(directory: Path, name: str) -> Path:
    """A file that holds an ext4 file system with one file, /there."""
    tree, path = directory / f"{name}.d", directory / f"{name}.img"
    tree.mkdir()
    (tree / "there").write_bytes(content(name))
    # No journal: what is only read must be mounted without being written to.
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, path, "2m"], check=True)
    return path


@pytest.fixture(scope="module", autouse=True)
def _images(containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("disks")
    files: dict[str, bytes | Symlink] = {
        images.KERNEL_PATH: guest.kernel().read_bytes(),
        "/srv/large": content("large"),
        "/srv/link": Symlink("large"),
        "/etc/app.ini": b"the image's own\n",
    }
    initrd = {images.INITRD_PATH: guest.initrd(more_modules=guest.MODULES_STORAGE)}
    data = {"/disks/data.img": disk(directory, "data").read_bytes(), "/disks/raw": content("raw", 1 << 20)}
    init = {f"/{name}": file for name, file in guest.tree().items()}
    init |= {f"/{name}/.keep": b"" for name in ("proc", "sys", "dev", "tmp")}
    containerd.load(
        Image(STORAGE, {**files, **initrd, **data}, entrypoint=(images.KERNEL_PATH,)),
        Image(TREE, {**files, **init, "/bin/sh": Symlink("busybox")}, entrypoint=(images.KERNEL_PATH,)),
        tender_double.image(DISKS, blocks={"first": b"one\n" + bytes(8188), "second": b"two\n" + bytes(8188)}),
    )


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, str]:
    """Read-only mounts by their path in the container: a ConfigMap as the kubelet lays it out, a Secret in memory, and
    a single file of each."""
    tmp_path.chmod(0o755)
    conf = tmp_path / "conf"
    (conf / "..2026").mkdir(parents=True)
    (conf / "..2026" / "key").write_bytes(content("conf"))
    (conf / "..data").symlink_to("..2026")
    (conf / "key").symlink_to("..data/key")
    (tmp_path / "app.ini").write_bytes(content("ini"))
    return {"/srv/conf": str(conf), "/etc/app.ini": str(tmp_path / "app.ini")}


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, as the kubelet keeps Secrets."""
    directory = tmp_path / "secret"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "secret", directory], check=True)
    try:
        (directory / "token").write_bytes(content("secret"))
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@contextmanager
def loop_device(path: Path) -> Iterator[str]:
    """A block device of the node's that holds what is in the file."""
    done = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def inside(node: Node, pod: Pod) -> Callable[[str], str]:
    """What the guest says is the SHA-256 of a file of its own, once it serves."""
    served(node, pod.address)

    def digest(path: str) -> str:
        return node.fetch(pod.address, f"/cgi-bin/file?{path}", timeout=10).split()[0]

    return digest


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wishes(**more: str) -> dict[str, str]:
    return {**LINUX, **{f"io.unikernel.{key}": value for key, value in more.items()}}


def stored(daemon: Daemon) -> dict[str, str]:
    """The files of the daemon's storage with their content's digest."""
    found = sorted(path for path in daemon.storage.rglob("*") if path.is_file())
    return {str(path.relative_to(daemon.storage)): sha256(path.read_bytes()) for path in found}


def test_disks_of_every_origin_and_an_initrd_with_volumes_in_it(
    node: Node,
    containerd: Containerd,
    daemon: Daemon,
    clean: LeakCheck,
    volumes: dict[str, str],
    secret: Path,
    tmp_path: Path,
) -> None:
    """A file of the image that is mounted, one that is written to, a block-mode volume; ConfigMap, Secret, single file,
    name servers."""
    blocks = "/disks/data.img:/mnt/data:ro,/disks/raw"
    dns = {"servers": ["192.0.2.53"], "searches": ["a.example"]}
    with (
        loop_device(disk(tmp_path, "volume")) as device,
        containerd.cri.pod("unikernel", annotations=wishes(block=blocks), dns=dns) as pod,
    ):
        container = pod.run(
            STORAGE, read_only_mounts={**volumes, "/run/secret": str(secret)}, devices=[device], memory=320 * _MIB
        )
        digest = inside(node, pod)
        assert digest("/mnt/data/there") == sha256(content("data"))
        assert digest("/dev/vdb") == sha256(content("raw", 1 << 20))
        assert digest("/dev/vdc") == sha256((tmp_path / "volume.img").read_bytes())
        assert digest("/srv/conf/key") == sha256(content("conf"))
        assert digest("/etc/app.ini") == sha256(content("ini"))
        assert digest("/run/secret/token") == sha256(content("secret"))
        assert digest("/etc/resolv.conf") == sha256(b"search a.example\nnameserver 192.0.2.53\n")
        assert digest("/etc/hostname") == sha256(f"{pod.name}\n".encode())
        assert node.fetch(pod.address, "/cgi-bin/write?/dev/vdb", timeout=10).strip() == "ok"
        assert node.fetch(pod.address, "/cgi-bin/write?/mnt/data/there", timeout=10).strip() == "failed"
        # The image's file is as it was: what was written to is the pod's copy.
        assert digest("/dev/vdb") != sha256(content("raw", 1 << 20))
        assert any(path.startswith("disks/") for path in stored(daemon))
        containerd.cri.stop(container)
        containerd.cri.remove(container)
        assert not any(path.startswith("disks/") for path in stored(daemon))
        assert sha256(content("secret")) not in str(stored(daemon))


@pytest.mark.parametrize("format", ["squashfs", "erofs", "iso9660", "ext4"])
def test_a_root_of_each_kind(
    format: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, volumes: dict[str, str]
) -> None:
    """The container's root file system, with volumes in it; the guest mounts it at /root."""
    with containerd.cri.pod("unikernel", annotations=wishes(root=format)) as pod:
        pod.run(STORAGE, read_only_mounts=volumes)
        digest = inside(node, pod)
        wanted = {"srv/large": "large", "srv/link": "large", "srv/conf/key": "conf", "etc/app.ini": "ini"}
        assert {path: digest(f"/root/{path}") for path in wanted} == {
            path: sha256(content(name)) for path, name in wanted.items()
        }
        outcome = node.fetch(pod.address, "/cgi-bin/write?/root/srv/new", timeout=10).strip()
        assert outcome == ("ok" if format == "ext4" else "failed")


def test_a_root_that_is_an_initrd(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, volumes: dict[str, str]
) -> None:
    annotations = {key: value for key, value in wishes(root="cpio").items() if not key.endswith(".initrd")}
    with containerd.cri.pod("unikernel", annotations=annotations) as pod:
        pod.run(TREE, args=["/init"], read_only_mounts=volumes, memory=320 * _MIB)
        digest = inside(node, pod)
        assert digest("/srv/large") == sha256(content("large"))
        assert digest("/srv/conf/key") == sha256(content("conf"))
        assert digest("/etc/app.ini") == sha256(content("ini"))


def test_directories_of_the_node_that_the_guest_mounts(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, tmp_path: Path
) -> None:
    """By 9p: the container's root file system, to be read, and a volume to be written to. What the guest's root makes
    there is the pod's user's; the other refuses it, though this guest mounts it to write and its directory is that
    user's."""
    initrd = guest.initrd(more_modules=guest.MODULES_9P, flavour=guest.FULL)
    files = {
        images.KERNEL_PATH: guest.kernel(guest.FULL).read_bytes(),
        images.INITRD_PATH: initrd,
        "/srv/large": content("large"),
    }
    containerd.load(Image(SHARES, files, entrypoint=(images.KERNEL_PATH,)))
    user, group, volume = 1234, 2345, tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, user, group)
    (volume / "there").write_bytes(content("volume"))
    (volume / "nodes").write_bytes(b"root's, of the node\n")
    asked = {"run_as_user": {"value": user}, "run_as_group": {"value": group}, "readonly_rootfs": True}
    with containerd.cri.pod("unikernel", annotations=wishes(root="9p", cmdline=f"{guest.WORDS} rw")) as pod:
        container = pod.run(SHARES, mounts={"/srv/volume": str(volume)}, security=asked)
        root = containerd.state / "io.containerd.runtime.v2.task" / "k8s.io" / container / "rootfs"
        os.chown(root / "srv", user, group)
        digest = inside(node, pod)

        def write(path: str) -> str:
            return node.fetch(pod.address, f"/cgi-bin/write?{path}", timeout=10).strip()

        assert digest("/root/srv/large") == sha256(content("large"))
        assert digest("/srv/volume/there") == sha256(content("volume"))
        assert write("/srv/volume/new") == "ok"
        assert write("/root/srv/new") == write("/root/srv/large") == write("/srv/volume/nodes") == "failed"
        assert digest("/root/srv/large") == sha256(content("large"))
        assert [path.name for path in (root / "srv").iterdir()] == ["large"]
    new = volume / "new"
    assert new.read_text() == "written by the guest\n" and (new.stat().st_uid, new.stat().st_gid) == (user, group)
    assert sorted(path.name for path in volume.iterdir()) == ["new", "nodes", "there"]
    assert (volume / "nodes").read_bytes() == b"root's, of the node\n"


def test_the_second_pod_of_an_image_makes_nothing(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """The cache is as it was, whatever is each pod's own."""
    made = []
    for _ in range(2):
        with containerd.cri.pod("unikernel", annotations=wishes(root="squashfs")) as pod:
            pod.run(STORAGE)
            made.append(stored(daemon))
    assert made[0] == made[1] and any(path.startswith("images/images/") for path in made[0])


def test_a_solo5_guest_has_the_disks_that_its_manifest_names(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """Files of the image: each life of the container has them as the image has them, though the tender writes."""
    annotations = {"io.unikernel.block": "second=/second,first=/first"}
    with containerd.cri.pod("unikernel", annotations=annotations) as pod:
        for attempt in range(2):
            container = pod.run(DISKS, args=["blocks"], attempt=attempt, name="disks")
            eventually(functools.partial(said, pod, container, "two"))
            assert sorted(pod.log(container).splitlines())[:2] == ["block first one", "block second two"]
            containerd.cri.stop(container)
            containerd.cri.remove(container)


def said(pod: Pod, container: str, word: str) -> bool:
    return word in pod.log(container)


def test_a_root_that_is_a_device_is_given_away_whole(
    node: Node, daemon: Daemon, clean: LeakCheck, tmp_path: Path
) -> None:
    """As a snapshotter of block devices hands a root file system over: the guest has the device, and nobody else has it
    mounted while it does."""
    tree, file = tmp_path / "tree", tmp_path / "root.img"
    for path, data in (
        (images.KERNEL_PATH, guest.kernel().read_bytes()),
        (images.INITRD_PATH, guest.initrd(more_modules=guest.MODULES_STORAGE)),
        ("/srv/large", content("large")),
    ):
        (tree / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tree / path[1:]).write_bytes(data)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, file, "64m"], check=True)
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    annotations = wishes(
        root="ext4", network="none", cmdline=f"{guest.WORDS} harness.sum=/root/srv/large harness.poweroff=0.1"
    )
    (bundle / "config.json").write_text(
        json.dumps(
            {
                "ociVersion": "1.0.2",
                "process": {"args": [images.KERNEL_PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}},
                "root": {"path": "rootfs"},
                "annotations": annotations,
                "linux": {
                    "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network")],
                    "cgroupsPath": f"{node.cgroup_parent}/device",
                },
            }
        )
    )
    console = tmp_path / "console"
    console.touch()
    with loop_device(file) as device, Door(daemon.socket, "storage") as door:
        rootfs = [{"type": "ext4", "source": device, "options": []}]
        door.task("Create", id="device", bundle=str(bundle), rootfs=rootfs, stdout=f"file://{console}")
        try:
            assert device not in Path("/proc/self/mounts").read_text()
            door.task("Start", id="device")
            door.task("Wait", id="device")
        finally:
            door.task("Delete", id="device")
        assert sha256(content("large")) in console.read_text()
    subprocess.run(["e2fsck", "-fn", file], check=True, capture_output=True)


# What is refused, with words, and leaves nothing.


def refused(pod: Pod, words: str, image: str = STORAGE, **options: Any) -> None:
    with pytest.raises(grpc.RpcError, match=words):
        pod.run(image, **options)


def test_what_cannot_reach_a_guest(
    containerd: Containerd, daemon: Daemon, clean: LeakCheck, volumes: dict[str, str], tmp_path: Path
) -> None:
    cri = containerd.cri
    with cri.pod("unikernel", annotations=wishes()) as pod:
        refused(pod, "/f: this volume is a file to be written to", mounts={"/f": volumes["/etc/app.ini"]})
    with cri.pod("unikernel", annotations=wishes(root="zfs")) as pod:
        refused(pod, "io.unikernel.root: 'zfs' is not a choice")
    with cri.pod("unikernel", annotations={"io.unikernel.block": "first=/first"}) as pod:
        refused(pod, r"asks for the block devices \[first, second\]", DISKS)
        refused(pod, "no such block device's image", DISKS, annotations={"io.unikernel.block": "first=/none"})
    with cri.pod("unikernel") as pod:
        both = {"io.unikernel.block": "/first,/second"}
        words = "/srv/conf: this volume cannot reach a solo5 guest"
        refused(pod, words, DISKS, annotations=both, read_only_mounts=volumes)
        writable = "/data: this volume is to be written to.*readOnly: true.*volumeDevices"
        refused(pod, writable, DISKS, annotations=both, mounts={"/data": str(tmp_path)})


def test_a_disk_that_is_full(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    """One page is left of the storage: neither an image nor a copy is made, and nothing stays of the attempts."""
    with full(daemon.storage):
        with containerd.cri.pod("unikernel", annotations=wishes(root="squashfs")) as pod:
            refused(pod, "there is no room left for an image; free some")
        with containerd.cri.pod("unikernel", annotations={"io.unikernel.block": "/first,/second"}) as pod:
            refused(pod, "there is no room left for a pod's copy of an image", DISKS)
        assert not [path for path in daemon.storage.rglob("*") if path.is_file()]


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """A file system with no room in the directory's place."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)
