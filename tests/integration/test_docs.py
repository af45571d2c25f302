"""Every command that README.md and docs/ show in a `sh` fence is run, page by page, on a real containerd and daemon.

What a page takes for granted is there: a pod called web, a namespace called pod with an eth0, kernels in the directory.
Not run, by their first word, are those in ELSEWHERE.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.demo import example
from tests.integration import paths, tender_double
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon, environment
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.unit.oci import elf

pytestmark = pytest.mark.timeout(180)

#: First words that are not run here, and who runs them.
ELSEWHERE = {
    "/opt/unikernel-shim/venv/bin/pip": "an installation's own, and the traces have tests here",
    "apt-get": "set-up",
    "docker": "no engine runs here; tests/integration/test_kind.py has a double of it",
    "git": "whoever has the page has the checkout",
    "kubectl": "no cluster can be started here; tests/unit/kubernetes validates the manifests",
    "make": "each target has tests of its own, and must exist",
    "systemctl": "no systemd runs here; tests/integration/test_systemd.py has the unit",
}
_FENCE = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_TARGETS = re.compile(r"^([a-z-]+):", re.MULTILINE)


def pages() -> list[str]:
    """Those with commands."""
    found = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(paths.ROOT)) for path in found if _FENCE.search(path.read_text())]


def commands(page: str) -> Iterator[str]:
    """The lines of its fences, each with those that continue it, and without what is not run here."""
    for fence in _FENCE.finditer((paths.ROOT / page).read_text()):
        text = re.sub(rf"^{fence[1]}", "", fence[2], flags=re.MULTILINE)
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] in ELSEWHERE:
                targets = set(_TARGETS.findall((paths.ROOT / "Makefile").read_text()))
                assert not words or words[0] != "make" or words[1] in targets, f"{page}: there is no {words[1]}"
                continue
            yield re.sub(r"\s+# .*", "", line)


@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page(
    page: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, tmp_path: Path
) -> None:
    said = "\n".join(map(_until_interrupted, commands(page)))
    if not said:
        return
    _files(tmp_path)
    with _web(containerd) as pod, ExitStack() as left:
        left.callback(subprocess.run, ["ip", "netns", "delete", "pod"], capture_output=True, check=False)
        left.callback(node.run, "ip", "link", "delete", "veth-pod", check=False)
        if "ip netns add pod" not in said:
            subprocess.run(["ip", "netns", "add", "pod"], check=True)
            node.run(*shlex.split("ip link add veth-pod type veth peer name eth0 netns pod"))
            for words in ("address add 172.31.7.5/24 dev eth0", "link set eth0 up"):
                subprocess.run(["ip", "-n", "pod", *words.split()], check=True)
        for placeholder, value in {"POD": pod.name, "ID": pod.id}.items():
            said = re.sub(rf"(?<![\w/$-]){placeholder}(?!\w)", value, said)
        said = said.replace("/run/unikernel-shim/", f"{daemon.run_dir}/")
        done = subprocess.run(
            node.inside("bash", "-euxo", "pipefail", "-c", said),
            cwd=tmp_path,
            env=_environment(node, daemon),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, f"{page}: {done.returncode}\n{done.stdout}{done.stderr}"


_ENDLESS = re.compile(r"^unikernel-shim (run|console) (?!.*&\s*$)|^unikernel-shim .* (-f|--follow|--watch)\b")


def _until_interrupted(line: str) -> str:
    """What runs until Ctrl-C gets it, after a while."""
    if _ENDLESS.search(line):
        # 130 is how most end then, and 143 a guest that cannot be asked to power down.
        return f"timeout --preserve-status -s INT 3 {line} || [[ $? = 1[34][03] ]]"
    return line


def _files(directory: Path) -> None:
    """What a page's reader has in the directory: a kernel, the example's, and the checkout's own."""
    (directory / "server.spt").write_bytes(elf.solo5(nets=[b"service"]))
    example.write(directory / "build" / "example")
    (directory / "contrib").symlink_to(paths.ROOT / "contrib")


@contextmanager
def _web(containerd: Containerd) -> Iterator[Pod]:
    """A pod called web, with a unikernel that answers at the pod's address: the tender's double."""
    containerd.load(tender_double.image())
    with containerd.cri.pod("unikernel", name="web") as pod:
        pod.run(tender_double.REFERENCE, args=[f"address={pod.address}", "say=hello"])
        yield pod


def _environment(node: Node, daemon: Daemon) -> dict[str, str]:
    return {
        **os.environ,
        **environment(daemon.config),
        "PATH": f"{node.base}:{paths.BIN}:{paths.cached('containerd-2', 'usr', 'bin')}:{os.environ['PATH']}",
        "CONTAINERD_ADDRESS": str(node.base / "containerd.sock"),
    }
