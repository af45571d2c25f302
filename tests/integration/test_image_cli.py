"""Images that `unikernel-shim image build` makes run on a real containerd with no annotation of the pod's, and what
containerd exports `image inspect` reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import guest, images, paths
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import served
from tests.unit.oci import elf

pytestmark = pytest.mark.timeout(120)

SOLO5, LINUX = "localhost/built-solo5:test", "localhost/built-linux:1.0"


def image(*arguments: str | Path, code: int = 0) -> Any:
    """`unikernel-shim image`; its JSON. Raises AssertionError with its output for another exit code."""
    command = [paths.BIN / "python3", "-m", "shim.cli.main", "image", *arguments]
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


def test_an_ordinary_image_that_containerd_exports(containerd: Containerd, daemon: Daemon, tmp_path: Path) -> None:
    exported = tmp_path / "exported.tar"
    containerd.ctr("images", "export", str(exported), images.BUSYBOX)
    found = image("inspect", "--json", exported, code=3)
    assert found["verdict"] == "ordinary" and "/bin/httpd is no kernel" in found["facts"]["container"]["why"]
