"""A made-up node's root, and programs of it that answer without being run."""

from __future__ import annotations

import os
import posixpath
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from contrib.kubernetes.installer import sequence
from contrib.kubernetes.installer.node import Node
from contrib.kubernetes.installer.record import Record
from contrib.kubernetes.installer.sequence import Installation, Site

ROOT = Path(__file__).parents[3]
CONTRIB = ROOT / "contrib"
#: A main file as a node has it: with comments, in the old format, and without a newline at its end.
MAIN = """# the node's own
version = 2
imports = ["/etc/containerd/other.toml"]

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"   # ours"""
#: One that imports a directory.
IMPORTING = 'version = 3\nimports = ["conf.d/*.toml"]\n'


def made(path: Path, release: str = "1", **units: str) -> Installation:
    """An installation as image/tree.sh makes it, but for its contents."""
    source = path / release
    for name in ("python/bin/python3.11", "venv/bin/unikernel-shim", "venv/bin/containerd-shim-unikernel-v2"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(release)
    (source / "share/containerd").mkdir(parents=True)
    for stanza in (CONTRIB / "containerd").glob("*.toml"):
        (source / "share/containerd" / stanza.name).write_text(stanza.read_text())
    (source / "share/config.toml").write_text(f"# of {release}\n")
    (source / "share/units").mkdir()
    unit = (CONTRIB / "systemd/unikernel-shim.service").read_text()
    for name, text in {"unikernel-shim.service": unit + f"# {release}\n", **units}.items():
        (source / "share/units" / name).write_text(text)
    return Installation(source, release)


#: What containerd has without any file.
_DEFAULTS: dict[str, Any] = {
    "plugins": {
        table: {"containerd": {"runtimes": {"runc": {}}}}
        for table in ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
    }
}


@dataclass
class Programs:
    """containerd and systemctl. containerd's configuration is made out as it does it; `asked` is what systemctl was."""

    version: str = "2.1.9"
    asked: list[str] = field(default_factory=list)
    refuses: str = ""

    def __call__(self, root: Path, argv: Sequence[str]) -> tuple[int, str, str]:
        if argv[0] == "systemctl":
            self.asked.append(" ".join(argv[1:]))
            return 0, "", ""
        if argv[-1] == "--version":
            return 0, f"containerd github.com/containerd/containerd/v2 {self.version}\n", ""
        main = Node(root).path(argv[2])
        document = _merged(_DEFAULTS, self._load(main) if main.exists() else {})
        for pattern in document.get("imports", []):
            directory = posixpath.join(posixpath.dirname(argv[2]), pattern)
            for file in sorted(root.glob(directory.lstrip("/"))):
                document = _merged(document, self._load(file))
        text = tomli_w.dumps(document)
        if self.refuses and self.refuses in text:
            return 1, "", "containerd: it will not have it\n"
        return 0, text, ""

    def _load(self, file: Path) -> dict[str, Any]:
        return tomllib.loads(file.read_text())


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        result[key] = _merged(one[key], value) if isinstance(value, dict) and key in one else value
    return result


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a root: type and mode, owner, content; and of files the time of their last change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        at = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        changed = at.st_mtime_ns if path.is_file() and not path.is_symlink() else None
        found[os.fspath(path.relative_to(root))] = (at.st_mode, at.st_uid, at.st_gid, content, changed)
    return found


class Killed(BaseException):
    """The installer was ended."""


class Fake:
    """A node with systemd and containerd's configuration `main`, below `root`."""

    def __init__(self, root: Path, main: str | None = MAIN, version: str = "2.1.9") -> None:
        self.root = root
        self.programs = Programs(version)
        for name in ("etc/systemd/system", "etc/containerd", "run/systemd/system", "usr/local/bin", "var/lib"):
            (root / name).mkdir(parents=True)
        if main is not None:
            self.main.write_text(main)
            self.main.chmod(0o640)
            os.utime(self.main, ns=(1, 1_234_567_891))
        self.before = tree(root)

    @property
    def main(self) -> Path:
        return self.root / "etc/containerd/config.toml"

    def install(self, installation: Installation, *, kill: int = -1) -> tuple[list[str], int]:
        """What it says and how many moments there were; ended at moment `kill` by Killed."""
        return self._run(kill, lambda node, record: sequence.install(node, Site(), installation, record))

    def remove(self, *, kill: int = -1, force: bool = False) -> tuple[list[str], int]:
        """As `install`."""
        return self._run(kill, lambda node, record: sequence.remove(node, Site(), record, force=force))

    def _run(self, kill: int, do: Any) -> tuple[list[str], int]:
        moments = 0

        def watcher(moment: str) -> None:
            nonlocal moments
            if moments == kill:
                raise Killed(moment)
            moments += 1

        node = Node(self.root, self.programs)
        return do(node, Record(node, watcher)), moments
