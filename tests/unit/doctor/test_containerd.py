"""containerd as /proc and its files show it; the shim binary that it would run."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from shim import courier as installed
from shim.doctor import containerd
from shim.doctor.containerd import Containerd
from shim.doctor.containerd_config import Courier
from shim.doctor.containerd_settings import Settings, settle
from shim.doctor.finding import Finding, Outcome
from shim.process.spawn import Completed

V21 = (2, 1)
ADDRESS = Path("/run/containerd/containerd.sock")
ANSWERING = Containerd(address=ADDRESS, version="v2.1.9", pid=7, path="/bin")
COURIER = Courier(path="/usr/local/bin/containerd-shim-unikernel-v2")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(main: Path) -> list[str]:
    return [each.path.name for each in containerd.read(main, V21)]


def test_imports_are_read_in_containerds_order(tmp_path: Path) -> None:
    main = write(tmp_path / "main.toml", f'imports = ["conf.d/*.toml", "{tmp_path}/last.toml"]')
    write(tmp_path / "conf.d" / "b.toml", 'imports = ["../deep/deep.toml"]')
    write(tmp_path / "conf.d" / "a.toml", "")
    write(tmp_path / "deep" / "deep.toml", 'imports = ["../main.toml"]')
    write(tmp_path / "conf.d" / "ignored.txt", "?")
    write(tmp_path / "last.toml", "")
    assert names(main) == ["main.toml", "a.toml", "b.toml", "last.toml", "deep.toml"]


def test_a_circle_of_imports_ends(tmp_path: Path) -> None:
    main = write(tmp_path / "main.toml", 'imports = ["main.toml", "other.toml"]')
    write(tmp_path / "other.toml", 'imports = ["main.toml"]')
    assert names(main) == ["main.toml", "other.toml"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version = ", "Invalid value"),
        (b"\xff\xfe", "utf-8"),
        (b"a = " + b"[" * 100_000, "too deep"),
        (b"version = 3\nversion = 3", "overwrite"),
    ],
    ids=["torn", "no text", "deep", "twice"],
)
def test_what_is_no_configuration(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "main.toml").write_bytes(content)
    (found,) = containerd.read(tmp_path / "main.toml", V21)
    assert found.table is None and found.error and (said in found.error or "recursion" in found.error)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert containerd.read(tmp_path, V21)[0].error == "it is no file"
    os.mkfifo(tmp_path / "fifo")
    assert containerd.read(tmp_path / "fifo", V21)[0].error == "it is no file"
    (missing,) = containerd.read(tmp_path / "none.toml", V21)
    assert missing.table is None and not missing.error
    _, imported = containerd.read(write(tmp_path / "main.toml", 'imports = ["none.toml", 7, "", "\\u0000"]'), V21)
    assert "not there" in imported.error


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["containerd", "--config", "/x"], "/x"),
        (["containerd", "-c", "/x", "--log-level", "debug"], "/x"),
        (["containerd", "--config=/x"], "/x"),
        (["containerd", "--config"], ""),
        (["containerd"], ""),
    ],
)
def test_the_configuration_it_was_started_with(argv: Sequence[str], found: str) -> None:
    assert containerd._option(argv, "config", "c") == found


@pytest.fixture
def listening() -> Iterator[Path]:
    """A socket of this process that takes connections and says nothing."""
    with tempfile.TemporaryDirectory(prefix="uks") as directory, socket.socket(socket.AF_UNIX) as opened:
        path = Path(directory) / "s"
        opened.bind(os.fspath(path))
        opened.listen()
        yield path


def test_its_process_is_whoever_listens(listening: Path) -> None:
    pid = containerd._listener(listening)
    seen = containerd._process(listening, pid)
    assert pid == os.getpid() and seen.pid == pid and seen.path == os.environ["PATH"]
    assert seen.config == containerd.DEFAULT_CONFIG or seen.config.is_absolute()


def test_a_process_that_cannot_be_looked_at(tmp_path: Path) -> None:
    seen = containerd._process(ADDRESS, 7, tmp_path)
    assert seen.pid == 0 and seen.config == containerd.DEFAULT_CONFIG and seen.path


async def test_nobody_listens(tmp_path: Path) -> None:
    async def run(argv: Sequence[str], *, timeout: float) -> Completed:
        return Completed(0, b"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n", b"")

    seen = await containerd.observe(tmp_path / "none", run)
    assert seen.refusal == "No such file or directory" and not seen.closed
    assert seen.line in ((1, 6), (0, 0))  # (0, 0) where no containerd is on PATH


def settings(tmp_path: Path, text: str = "") -> Settings:
    return settle(containerd.read(write(tmp_path / "main.toml", text), V21), V21)


def courier(path: Path, first: str = "#!/bin/sh", *, other: bool = False) -> Path:
    body = Path(installed.__file__).read_text() + ("changed = True\n" if other else "")
    write(path / "containerd-shim-unikernel-v2", f"{first}\n{body}").chmod(0o755)
    return path


def found(tmp_path: Path, seen: Containerd, text: str = "") -> Courier:
    return containerd.find_courier(seen, settings(tmp_path, text))


def test_the_shim_binary_is_looked_for_where_containerd_looks(tmp_path: Path) -> None:
    seen = Containerd(address=ADDRESS, path=os.fspath(tmp_path / "path"), beside=os.fspath(tmp_path / "beside"))
    opt = f"[plugins.'io.containerd.internal.v1.opt']\npath = '{tmp_path}/opt'"
    assert found(tmp_path, seen, opt) == Courier()
    for directory in ("beside", "path", "opt/bin"):
        courier(tmp_path / directory)
        assert Path(found(tmp_path, seen, opt).path).parent == tmp_path / directory


def test_a_shim_binary_of_another_version(tmp_path: Path) -> None:
    seen = Containerd(address=ADDRESS, path=os.fspath(courier(tmp_path, other=True)))
    assert found(tmp_path, seen).fault == "it is another version's" and found(tmp_path, seen).runs


@pytest.mark.parametrize("first", ["#!/no/python3 -IS", "import os", "#!"])
def test_a_shim_binary_that_does_not_start(first: str, tmp_path: Path) -> None:
    seen = Containerd(address=ADDRESS, path=os.fspath(courier(tmp_path, first)))
    assert "interpreter" in found(tmp_path, seen).fault and not found(tmp_path, seen).runs


def judged(seen: Containerd, shim: Courier = COURIER, couriers: bool = True) -> dict[str, Finding]:
    every = containerd.judge(seen, shim, Path("/run/unikernel-shim"), couriers)
    return {finding.subject: finding for finding in every}


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ("v2.1.9", Outcome.GOOD),
        ("1.6.20~ds1", Outcome.GOOD),
        ("v2.3.4", Outcome.GOOD),
        ("v2.9.0", Outcome.DOUBTFUL),
        ("v1.5.0", Outcome.BAD),
        ("of today", Outcome.DOUBTFUL),
    ],
)
def test_its_version(version: str, outcome: Outcome) -> None:
    assert judged(msgspec.structs.replace(ANSWERING, version=version))["version"].outcome is outcome


def test_one_that_does_not_answer() -> None:
    silent = Containerd(address=ADDRESS, refusal="No such file or directory", installed="1.7.24", path="/bin")
    assert judged(silent)["version"].outcome is Outcome.BAD and silent.line == (1, 7)
    closed = msgspec.structs.replace(silent, closed=True)
    assert judged(closed)["version"].outcome is Outcome.UNSEEN


def test_what_is_said_of_the_shim_binary() -> None:
    assert judged(ANSWERING)["shim binary"].outcome is Outcome.GOOD
    assert judged(ANSWERING, Courier())["shim binary"].outcome is Outcome.DOUBTFUL
    assert judged(ANSWERING, Courier(), couriers=False)["shim binary"].outcome is Outcome.ABSENT
    stale = Courier(path="/bin/x", fault="it is another version's")
    assert judged(ANSWERING, stale)["shim binary"].outcome is Outcome.DOUBTFUL


def test_couriers_that_ask_elsewhere(tmp_path: Path) -> None:
    def with_file(text: str, **more: object) -> dict[str, Finding]:
        file = write(tmp_path / "config.toml", text)
        environment = {"UNIKERNEL_SHIM_CONFIG": os.fspath(file)}
        return judged(msgspec.structs.replace(ANSWERING, environment=environment), **more)  # type: ignore[arg-type]

    assert "configuration of couriers" not in with_file("")
    assert "/elsewhere" in with_file('run_dir = "/elsewhere"')["configuration of couriers"].what
    assert "cannot be read" in with_file("run_dir = [")["configuration of couriers"].what
    assert "configuration of couriers" not in with_file('run_dir = "/elsewhere"', couriers=False)
