"""Images that `unikernel-shim image build` makes run on a real containerd with no annotation of the pod's, and what
containerd exports `image inspect` reads, with layers as containerd unpacks them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shim.oci.archive import documents, stored
from shim.oci.archive.files import Archive
from shim.oci.archive.tree import Directory, File, Symlink
from tests.integration import guest, images, paths
from tests.integration.containerd import Containerd, snapshotter
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import served
from tests.unit.oci import elf
from tests.unit.oci.archive.making import DIRECTORY, FIFO, HARD, LINK, Content, Layout, tar

pytestmark = pytest.mark.timeout(120)

PROGRAM: tuple[str | Path, ...] = (paths.BIN / "python3", "-m", "shim.cli.main", "image")
SOLO5, LINUX = "localhost/built-solo5:test", "localhost/built-linux:1.0"


def image(*arguments: str | Path, code: int = 0) -> Any:
    """`unikernel-shim image`; its JSON. Raises AssertionError with its output for another exit code."""
    command = [*PROGRAM, *arguments]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def archive(node: Node) -> Iterator[Path]:
    path = node.base / "built.tar"
    yield path
    path.unlink(missing_ok=True)


def test_a_solo5_kernel(
    node: Node, containerd: Containerd, daemon: Daemon, archive: Path, tmp_path: Path, clean: LeakCheck
) -> None:
    (tmp_path / "kernel").write_bytes(elf.solo5(nets=[b"service"]))
    words = ("--kernel", tmp_path / "kernel", "--arg", "say=hello", "--arg", "after=0.2", "--arg", "exit=3")
    built = image("build", "--json", "--name", SOLO5, "--output", archive, *words)
    containerd.ctr("images", "import", str(archive))
    assert built["digest"] in containerd.ctr("images", "list", f"name=={SOLO5}")
    with containerd.cri.pod("unikernel") as pod:
        container = pod.run(SOLO5)
        assert containerd.cri.wait_exit(container).exit_code == 3
        assert "hello" in pod.log(container).splitlines()
    exported = tmp_path / "exported.tar"
    containerd.ctr("images", "export", str(exported), SOLO5)
    found = image("inspect", "--json", exported)
    assert (found["verdict"], found["name"], found["digest"]) == ("unikernel", SOLO5, built["digest"])


def test_a_linux_kernel_and_its_initrd(
    node: Node, containerd: Containerd, daemon: Daemon, archive: Path, tmp_path: Path, clean: LeakCheck
) -> None:
    (tmp_path / "initrd").write_bytes(guest.initrd())
    words = (
        "--kernel",
        guest.kernel(),
        "--initrd",
        tmp_path / "initrd",
        "--memory",
        "160Mi",
        "--cmdline",
        "built.here",
    )
    image("build", "--json", "--name", LINUX, "--output", archive, *words)
    containerd.ctr("images", "import", str(archive))
    with containerd.cri.pod("unikernel") as pod:
        pod.run(LINUX)
        page = served(node, pod.address)
        assert page["address"] == pod.address and "built.here" in page["cmdline"]


HERE = documents.ARCHITECTURES[os.uname().machine]

#: Everything in which one layer can bear upon another.
LAYERS: list[list[tuple[str, Content]]] = [
    [
        *((f"{name}/a", b"1") for name in ("plain", "hidden", "opaque", "late", "merged", "replaced")),
        *((f"{name}/b", b"22") for name in ("plain", "opaque", "late")),
        ("usr/lib/a", b"1"), ("lib", (LINK, "usr/lib")), ("out", (LINK, "../../../climbed")), ("file", b"1"),
        ("../above", b"1"), ("/absolute", b"1"), ("deep/../dots", b"1"), ("one", b"1"), ("same", (HARD, "one")),
        ("fifo", (FIFO, "")), ("over", (LINK, "/usr")),
    ],
    [
        ("plain/.wh.a", b""), (".wh.hidden", b""), ("opaque/.wh..wh..opq", b""), ("opaque/c", b"333"),
        ("late/c", b"333"), ("late/.wh..wh..opq", b""), ("merged", (DIRECTORY, "")), ("merged/c", b"333"),
        ("replaced", b"a file"), ("lib/b", b"22"), ("out/a", b"1"), ("file", (DIRECTORY, "")), ("file/a", b"1"),
        (".wh.one", b""), ("two", b"22"), ("again", (HARD, "/two")), (".wh..wh.plnk", b""), ("over", (DIRECTORY, "")),
    ],
]  # fmt: skip


def test_layers_are_to_inspect_what_they_are_to_containerd(
    containerd: Containerd, daemon: Daemon, tmp_path: Path, clean: LeakCheck
) -> None:
    if snapshotter(containerd.node) != "overlayfs":
        pytest.skip("other snapshotters unpack a layer into what is below it")
    name, point = "localhost/layers:test", tmp_path / "mounted"
    layout = Layout()
    layout.image([tar(layer) for layer in LAYERS], name=name, architecture=HERE)
    path = layout.archive(tmp_path / "layers.tar")
    files = Archive(path.open("rb"), path.name)
    tree = stored.layers_of(files, stored.find(files))
    files.close()
    containerd.ctr("images", "import", str(path))
    point.mkdir()
    containerd.ctr("images", "mount", name, str(point))
    try:
        assert listed(tree.top) == on_disk(point)
    finally:
        containerd.ctr("images", "unmount", "--rm", str(point))
        containerd.ctr("images", "delete", name)


def listed(directory: Directory, at: str = "") -> dict[str, str]:
    """Each path of a tree, and what is there."""
    found: dict[str, str] = {}
    for name, node in directory.children.items():
        path = f"{at}/{name}"
        match node:
            case Directory():
                found |= {path: "directory", **listed(node, path)}
            case File():
                found[path] = f"{node.size} bytes"
            case Symlink():
                found[path] = f"to {node.target}"
            case _:
                found[path] = "special"
    return found


def on_disk(root: Path) -> dict[str, str]:
    """The same of a directory."""
    found = {}
    for path in root.rglob("*"):
        name = f"/{path.relative_to(root)}"
        if path.is_symlink():
            found[name] = f"to {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = f"{path.stat().st_size} bytes" if path.is_file() else "special"
    return found


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    kernel, root, disk = tmp_path / "kernel", tmp_path / "root", tmp_path / "disk"
    kernel.write_bytes(elf.solo5())
    root.mkdir()
    (root / "noise").write_bytes(os.urandom(1 << 20))
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", disk], check=True)
    try:
        # The layer has room, and not a second time beside itself.
        words = ("--kernel", kernel, "--root", root, "--output", disk / "a.tar")
        command = [*PROGRAM, "build", *words]
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "a.tar: the archive cannot be written: No space left" in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_ordinary_image_that_containerd_exports(containerd: Containerd, daemon: Daemon, tmp_path: Path) -> None:
    exported = tmp_path / "exported.tar"
    containerd.ctr("images", "export", str(exported), images.BUSYBOX)
    found = image("inspect", "--json", exported, code=3)
    assert found["verdict"] == "ordinary" and "/bin/httpd is no kernel" in found["facts"]["container"]["why"]
