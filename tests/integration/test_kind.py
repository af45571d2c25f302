"""contrib/kind: its configuration by the real kind, its script's course with doubles.

No Docker engine runs here. So kind is given a docker that writes down what it is asked and answers as one with an
engine would, up to the nodes' start; and for the script kind and kubectl are doubles too. That a cluster comes up and
its pods serve is not shown by these tests, but by running the script where there is an engine.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration import paths

KIND = paths.ROOT / "contrib/kind"
SCRIPTS = (
    *sorted(paths.ROOT.glob("contrib/**/*.sh")),
    paths.ROOT / "contrib/kubernetes/image/installer",
    *sorted(paths.ROOT.glob("tests/setup/*.sh")),
)

_DOCKER = """#!/bin/sh
echo "docker $*" >>"$ASKED"
case "$*" in
*"$FAILS"*) [ -z "$FAILS" ] || exit 1 ;;
esac
case "$1" in
-v) echo "Docker version 28.2.2, build e6534b4" ;;
info) echo '{"CgroupVersion":"2","MemoryLimit":true,"CPUShares":true,"PidsLimit":true,"SecurityOptions":[]}' ;;
exec) case "$*" in *find*) printf '%s' "$LEFT" ;; *) exit 1 ;; esac ;;
esac
exit 0
"""
_KIND = """#!/bin/sh
echo "kind $*" >>"$ASKED"
case "$*" in *"$FAILS"*) [ -z "$FAILS" ] || exit 1 ;; esac
case "$*" in "get nodes"*) echo node-1 ;; esac
"""
_KUBECTL = """#!/bin/sh
echo "kubectl $*" >>"$ASKED"
case "$*" in *"$FAILS"*) [ -z "$FAILS" ] || exit 1 ;; esac
case "$*" in
*"get service"*) echo 10.96.0.7 ;;
*"get pod client"*) echo 10.244.1.2 ;;
*"get pods -l"*) echo 10.244.1.3 10.244.0.4 ;;
*cgi-bin*) echo an ordinary pod ;;
*" fetch "*) echo "boot: 1" ;;
esac
"""


class Desk:
    """A PATH of doubles, and what they were asked."""

    def __init__(self, directory: Path, **doubles: str) -> None:
        self.asked_file = directory / "asked"
        self.asked_file.touch()
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name, text in doubles.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self.asked_file.read_text().splitlines()

    def run(self, *argv: str | Path, fails: str = "", left: str = "", path: str = "/usr/bin:/bin") -> tuple[int, str]:
        """Its status and all it said."""
        done = subprocess.run(
            argv,
            env={
                "PATH": f"{self.bin}:{path}",
                "HOME": os.fspath(self.bin),
                "ASKED": os.fspath(self.asked_file),
                "FAILS": fails,
                "LEFT": left,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
        )
        return done.returncode, done.stdout


def _create(desk: Desk, config: Path) -> tuple[int, str]:
    kind = paths.cached("kind", "usr", "bin", "kind")
    return desk.run(kind, "create", "cluster", "--name", "u", "--config", config, "--image", "unikernel-node:kind")


def test_the_real_kind_reads_the_configuration(tmp_path: Path) -> None:
    desk = Desk(tmp_path, docker=_DOCKER)
    _, words = _create(desk, KIND / "cluster.yaml")
    nodes = [line for line in desk.asked if line.startswith("docker run ")]
    assert [line.split()[-1] for line in nodes] == ["unikernel-node:kind"] * 2, words
    assert any("--name u-control-plane" in line for line in nodes)
    assert any("--name u-worker" in line for line in nodes)
    # Where the double's nodes end: they do not boot.
    assert "could not find a log line" in words


def test_the_node_is_built_on_what_kind_is_made_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, docker=_DOCKER)
    desk.run(paths.cached("kind", "usr", "bin", "kind"), "create", "cluster")
    own = next(line for line in desk.asked if " kindest/node:" in line).split()[-1].partition("@")[0]
    for file in ("run.sh", "node.Dockerfile"):
        assert own in (KIND / file).read_text(), own


def test_the_real_kind_refuses_a_key_that_it_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((KIND / "cluster.yaml").read_text().replace("labels:", "lables:"))
    _, words = _create(Desk(tmp_path, docker=_DOCKER), wrong)
    assert "field lables not found" in words


def test_the_script_goes_its_course(tmp_path: Path) -> None:
    desk = Desk(tmp_path, docker=_DOCKER, kind=_KIND, kubectl=_KUBECTL)
    status, words = desk.run(KIND / "run.sh")
    assert status == 0, words
    asked = desk.asked
    course = [
        "docker build -f",
        "kind create cluster --name unikernel",
        "kind load docker-image --name unikernel unikernel-guest:kind unikernel-client:kind",
        "kubectl --context kind-unikernel apply -f",
        "kubectl --context kind-unikernel rollout status deployment/web",
        "kubectl --context kind-unikernel exec client -- fetch 10.96.0.7 /",
        "kubectl --context kind-unikernel exec client -- fetch 10.244.1.3 /cgi-bin/fetch?10.244.1.2",
        "kubectl --context kind-unikernel exec client -- fetch 10.244.0.4 /cgi-bin/fetch?10.244.1.2",
        "kubectl --context kind-unikernel rollout restart deployment/web",
        "kubectl --context kind-unikernel delete -f",
        "docker exec node-1 find /run/unikernel-shim",
        "kind delete cluster --name unikernel",
    ]
    places = [next((n for n, line in enumerate(asked) if line.startswith(step)), -1) for step in course]
    assert -1 not in places and places == sorted(places), dict(zip(course, places, strict=True))
    # What it builds by and applies is there.
    files = [words[words.index("-f") + 1] for words in map(str.split, asked) if "-f" in words]
    assert files and all(Path(file).is_file() for file in files)


@pytest.mark.parametrize(
    ("fails", "left", "words"),
    [
        ("docker-image", "", ""),
        ("rollout status", "", ""),
        ("cgi-bin", "", "does not answer the guest 10.244.1.3"),
        ("/tmp/over", "", "the requests were cut off"),
        ("", "/run/unikernel-shim/journal/x.json", "left on node-1: /run/unikernel-shim/journal/x.json"),
    ],
)
def test_a_failure_ends_it_with_the_cluster_gone(fails: str, left: str, words: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, docker=_DOCKER, kind=_KIND, kubectl=_KUBECTL)
    status, said = desk.run(KIND / "run.sh", fails=fails, left=left)
    assert status != 0
    assert words in said
    assert desk.asked[-1] == "kind delete cluster --name unikernel"


@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl"])
def test_what_is_missing_is_said(missing: str, tmp_path: Path) -> None:
    doubles = {"docker": _DOCKER, "kind": _KIND, "kubectl": _KUBECTL}
    del doubles[missing]
    desk = Desk(tmp_path, **doubles)
    for program in ("bash", "sh", "dirname"):
        (desk.bin / program).symlink_to(paths.program(program))
    status, words = desk.run(KIND / "run.sh", path="")
    assert status == 1
    assert f"{missing} is missing" in words


def test_an_engine_that_does_not_answer_is_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path, docker=_DOCKER, kind=_KIND, kubectl=_KUBECTL)
    status, words = desk.run(KIND / "run.sh", "up", fails="info")
    assert status == 1 and "engine does not answer" in words


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(paths.ROOT)))
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    # What quotes keep from the shell is so on purpose.
    check = [paths.program("shellcheck"), "--exclude=SC2016", "--external-sources", os.fspath(script)]
    done = subprocess.run(check, capture_output=True, text=True, cwd=paths.ROOT, check=False)
    assert done.returncode == 0, done.stdout
