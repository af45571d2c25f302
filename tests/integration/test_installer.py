"""The installer of a cluster's nodes on a made-up node: a root of its own with a real containerd, without systemd.

The node's `systemctl` is a double that writes down what it is asked: a systemd cannot be had in a test. Kills at each
moment are tests/unit/kubernetes' business.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.kubernetes.installer import sequence
from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.record import Record
from contrib.kubernetes.installer.sequence import HOME, Site
from shim.errors import NodeFault
from tests.integration import paths
from tests.integration.containerd import LINES
from tests.unit.kubernetes.a_node import IMPORTING, MAIN, made, tree

RELEASE = "of-the-tests"
# Written by the double of systemctl, and so no part of what the installer leaves.
ASKED = "asked"


def program(root: Path, source: str | Path, name: str = "") -> None:
    """Put a program of this machine into the root, with the libraries that the loader finds for it."""
    wanted = {Path(source): root / "usr/bin" / (name or Path(source).name)}
    found = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout.split()
    wanted |= {Path(word): root / word.lstrip("/") for word in found if word.startswith("/")}
    for file, target in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(file, target)


def a_node(root: Path, line: str, main: str | None) -> Path:
    """A node's root with containerd of the line, busybox for its shell, and the double of systemctl."""
    for name in ("etc/systemd/system", "etc/containerd", "run/systemd/system", "usr/local/bin", "usr/bin", "bin", "dev",
                 "var/lib", "proc", "tmp"):  # fmt: skip
        (root / name).mkdir(parents=True)
    program(root, paths.cached(f"containerd-{line}", "usr", "bin", "containerd"))
    program(root, paths.program("busybox"))
    (root / "bin/sh").symlink_to("/usr/bin/busybox")
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    (root / "usr/bin/systemctl").write_text(f'#!/bin/sh\necho "$@" >>/{ASKED}\n')
    (root / "usr/bin/systemctl").chmod(0o755)
    (root / ASKED).touch()
    if main is not None:
        (root / "etc/containerd/config.toml").write_text(main)
        os.utime(root / "etc/containerd/config.toml", ns=(1, 1_234_567_891))
    return root


def looked_at(root: Path) -> dict[str, tuple[object, ...]]:
    return {name: each for name, each in tree(root).items() if name != ASKED}


def mains(line: str) -> dict[str, str | None]:
    """Main files of nodes with that containerd; `default` is what it prints itself to begin with."""
    containerd = paths.cached(f"containerd-{line}", "usr", "bin", "containerd")
    default = subprocess.run([containerd, "config", "default"], capture_output=True, text=True, check=True).stdout
    files: dict[str, str | None] = {"written": MAIN, "default": default}
    return {**files, "importing": IMPORTING, "missing": None} if line == "2" else files


@pytest.mark.parametrize("line", LINES)
def test_every_containerd_has_the_runtime_and_then_has_it_not(line: str, tmp_path: Path) -> None:
    installation = made(tmp_path)
    for name, main in mains(line).items():
        root = a_node(tmp_path / name, line, main)
        (root / "etc/containerd/other.toml").write_text("")
        before, node = looked_at(root), Node(root)
        sequence.install(node, Site(), installation, Record(node))
        dumped = tomllib.loads(node.run("containerd", "--config", Site().config, "config", "dump"))
        table = "io.containerd.cri.v1.runtime" if line == "2" else "io.containerd.grpc.v1.cri"
        runtimes = dumped["plugins"][table]["containerd"]["runtimes"]
        assert set(runtimes) >= {"unikernel", "runc"}, name
        assert runtimes["unikernel"].get("sandboxer", "") == ("unikernel" if line == "2" else ""), name
        assert (root / ASKED).read_text().splitlines()[-1] == "restart containerd.service", name
        sequence.remove(node, Site(), Record(node))
        assert looked_at(root) == before, name


def test_a_configuration_that_containerd_does_not_take_is_not_left(tmp_path: Path) -> None:
    # An inline table cannot be added to.
    main = 'version = 2\nplugins = { "io.containerd.grpc.v1.cri" = { sandbox_image = "pause" } }\n'
    root = a_node(tmp_path / "node", "2", main)
    before, node = looked_at(root), Node(root)
    with pytest.raises(NodeFault, match="containerd"):
        sequence.install(node, Site(), made(tmp_path), Record(node))
    assert (root / "etc/containerd/config.toml").read_text() == main
    assert "restart" not in (root / ASKED).read_text()
    sequence.remove(node, Site(), Record(node))
    assert looked_at(root) == before


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """An installation as the image has it, made at the path where nodes have it, seen from here at another."""
    made_home = not Path(HOME).exists()
    Path(HOME).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unikernel-shim-tree.", dir=paths.TEMPORARY) as directory:
        script = f'mount --bind "{directory}" {HOME} && exec "$0" {HOME}/versions/{RELEASE}'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, paths.ROOT / "contrib/kubernetes/image/tree.sh"],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        if made_home:
            Path(HOME).rmdir()
        assert done.returncode == 0, done.stderr
        yield Path(directory) / "versions" / RELEASE


def test_a_node_without_python_has_all_that_the_service_needs(whole: Path, tmp_path: Path) -> None:
    root = a_node(tmp_path / "node", "2", MAIN)
    (root / "etc/containerd/other.toml").write_text("")
    before = looked_at(root)
    _installer(root, whole, "install")
    programs = f"{HOME}/current/venv/bin"
    assert "unikernel-shim, version" in _inside(root, f"{programs}/unikernel-shim", "--version")
    assert (
        f"#!{HOME}/versions/{RELEASE}/python/"
        in (root / f"{programs}/containerd-shim-unikernel-v2".lstrip("/")).read_text()
    )
    # As far as it goes on a node without an engine, which is past everything that it brings along.
    service = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t proc proc "$0/proc" && exec chroot "$0" unikernel-shim serve',
            root,
        ],
        env={"PATH": f"/usr/local/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "no OCI runtime works here" in service.stderr
    _installer(root, whole, "status")
    _installer(root, whole, "remove")
    _installer(root, whole, "status", "--absent")
    assert looked_at(root) == before


def test_its_words_are_a_sentence(tmp_path: Path) -> None:
    root = a_node(tmp_path / "node", "1.7", MAIN.replace("version = 2", ""))
    done = _run(root, made(tmp_path).source, "install")
    assert done.returncode == 1
    assert done.stderr.startswith("installer: /etc/containerd/config.toml: is of version 1")
    assert _run(root, made(tmp_path / "other").source, "status").returncode == 1


def _installer(root: Path, source: Path, *words: str) -> None:
    done = _run(root, source, *words)
    assert done.returncode == 0, done.stderr


def _run(root: Path, source: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installer's own command, with its options as a DaemonSet gives them."""
    return subprocess.run(
        [sys.executable, "-m", "contrib.kubernetes.installer", *words],
        env={**os.environ, "INSTALLER_ROOT": os.fspath(root), "INSTALLER_SOURCE": os.fspath(source)},
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def _inside(root: Path, *argv: str) -> str:
    return subprocess.run(["chroot", root, *argv], capture_output=True, text=True, timeout=20, check=True).stdout
