"""What a test leaves behind: everything the shim, containerd and CNI make, listed before and after.

Only what belongs to the node under test is looked at, so several test runs can share a machine: things are known by the
node's token (in every path and cgroup), by its network namespace, and by the ids of the pods and containers made.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from tests.integration.containerd import Containerd
from tests.integration.node import Node, cgroup_roots, mounts

#: How long the kernel may take: closing a tap and dropping a namespace are its business, and lag.
GRACE = 5.0
#: What the first pod makes for all: the reference plugins' bridge and chains, containerd's directories per namespace
#: and kind, the engine's, what the daemon remembers of the machine, and images, which are kept for the next pod.
_KEPT = re.compile(
    r"(link|address|route) .*\bcni0\b"
    r"|iptables .*-A (PREROUTING|OUTPUT|POSTROUTING|CNI-HOSTPORT-(MASQ|SETMARK)) .*\bCNI-HOSTPORT|iptables .*\b0x2000\b"
    r"|file .*/storage(/disks(/[^/]+)?|/images(/(images|keys)(/[^/]+)?|/building)?)?$"
    r"|file .*/run/(acceleration\.json|lock|serving|ns/[^/]+|engine/(crun|runc)(/[^/]+)?)$"
    r"|file .*/io\.containerd\.grpc\.v1\.cri/(containers|netns|sandboxes)$"
    r"|file .*/io\.containerd\.(runtime\.v2\.task|sandbox\.controller\.v1\.shim)/[^/]+$"
)
#: What a test that restarts servers leaves: the one that runs now is another process than before; and containerd itself
#: leaves the directory of a task whose shim it could not reach until its own next start.
RESTARTED = re.compile(
    r"process .*(/unikernel-shim serve|/containerd --config .*)$"
    r"|file .*/io\.containerd\.runtime\.v2\.task/|file .*/run/lock$"
)

Listing = dict[str, set[str]]


class LeakCheck:
    """Use it as a context: on leaving, raises AssertionError that lists what is new and does not go away.

    `ids` are ids that appear in no CRI answer (a `ctr run`); `directories` are further directories to be left as found;
    `expected` is found in lines of what may be new.
    """

    def __init__(
        self,
        node: Node,
        containerd: Containerd | None = None,
        *,
        directories: Iterable[Path] = (),
        ids: Iterable[str] = (),
        expected: re.Pattern[str] | None = None,
        grace: float = GRACE,
    ) -> None:
        self._node = node
        self._containerd = containerd
        self._directories = [node.base / "run", node.base / "storage", *directories]
        if containerd is not None:
            state = containerd.state
            self._directories += [
                state / "netns",
                *(
                    state / f"io.containerd.{name}"
                    for name in ("runtime.v2.task", "grpc.v1.cri", "sandbox.controller.v1.shim")
                ),
            ]
        self._ids = list(ids)
        self._expected = expected
        self._grace = grace
        self._before: Listing = {}

    def __enter__(self) -> LeakCheck:
        self._before = self.listing()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            leaked = self.settled()
            assert not leaked, "left behind:\n" + "\n".join(f"    {line}" for line in leaked)

    def settled(self) -> list[str]:
        """What is new, once that stops shrinking or the grace is over."""
        deadline = time.monotonic() + self._grace
        while (new := self.new()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return new

    def new(self) -> list[str]:
        """What is there now and was not at the start."""
        now = self.listing()
        found = (
            f"{kind} {item}" for kind, items in now.items() for item in sorted(items - self._before.get(kind, set()))
        )
        return [
            line for line in found if not _KEPT.match(line) and not (self._expected and self._expected.search(line))
        ]

    def listing(self) -> Listing:
        """Everything of the node's, by kind."""
        marks = self._marks()
        node = self._node
        return {
            "link": {link["ifname"] for link in node.ip("link", "show")},
            "address": _lines(node, "-o", "address", "show"),
            "route": _lines(node, "route", "show", "table", "all"),
            "rule": _lines(node, "rule", "show"),
            "iptables": _iptables(node),
            "namespace": {path.name for path in Path("/run/netns").glob("*") if node.token in path.name},
            "mount": {point for point in mounts() if any(mark in point for mark in marks)},
            "cgroup": set(_cgroups(marks)),
            "process": set(_processes(marks, node)),
            "descriptor": set(_descriptors(marks, node)),
            "file": {str(path) for directory in self._directories for path in _below(directory)},
            "shim socket": set(_shim_sockets(marks)),
            "loop device": set(_loop_devices(marks)),
        }

    def _marks(self) -> list[str]:
        made = self._containerd.cri.made if self._containerd else []
        return [self._node.token, *made, *self._ids]


def _lines(node: Node, *arguments: str) -> set[str]:
    """Lines of ip(8) without what changes by itself."""
    text = node.run("ip", *arguments)
    return {
        re.sub(r"\s+", " ", re.sub(r"^\d+: |valid_lft .*| expires \S+| linkdown", "", line)).strip()
        for line in text.splitlines()
    }


def _iptables(node: Node) -> set[str]:
    return {line for line in node.run("iptables-save", check=False).splitlines() if line.startswith("-A")}


def _cgroups(marks: list[str]) -> Iterable[str]:
    for root in cgroup_roots():
        for directory, names, _ in os.walk(root):
            for name in names:
                path = f"{directory}/{name}"
                # The pods' parent belongs to the node, as on a real one it belongs to the kubelet.
                if any(mark in path for mark in marks) and not path.endswith(f"/{marks[0]}"):
                    yield path


def _read(path: Path, read: Callable[[Path], str] = Path.read_text) -> str:
    """A file of /proc; empty if its process has gone."""
    try:
        return read(path)
    except (OSError, UnicodeDecodeError):
        return ""


def _link(path: Path) -> str:
    return _read(path, lambda each: os.fspath(each.readlink()))


def _ours(marks: list[str], node: Node) -> Iterable[tuple[Path, str]]:
    """Processes of the node's: in its network, its cgroups, or named for it; each with its command line."""
    network = f"net:[{(Path('/run/netns') / node.netns).stat().st_ino}]" if node.token in _named() else ""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        command = _read(
            process / "cmdline", lambda path: path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        ).strip()
        if not command:  # a kernel thread, or a zombie
            stat = _read(process / "stat")
            if stat.rpartition(")")[2].split()[:2] == ["Z", "1"]:
                continue  # pid 1 has it, and collects it when it likes
            command = stat.rpartition(")")[0]
        where = (_read(process / "cgroup"), command, _link(process / "cwd"), _link(process / "root"))
        if _link(process / "ns" / "net") == network or any(mark in text for mark in marks for text in where):
            yield process, command


def _named() -> set[str]:
    return {path.name for path in Path("/run/netns").glob("*")}


def _processes(marks: list[str], node: Node) -> Iterable[str]:
    return (f"{process.name} {command[:200]}" for process, command in _ours(marks, node))


def _descriptors(marks: list[str], node: Node) -> Iterable[str]:
    """Namespaces, taps and processes that the node's own servers hold open: a namespace lives as long as one does."""
    for process, _ in _ours(marks, node):
        if _link(process / "exe").endswith(("/containerd", "/ctr")):
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            target = _link(descriptor)
            if (
                target.startswith(("net:[", "mnt:[", "/dev/net/tun", "anon_inode:[pidfd]", "/dev/kvm"))
                or "/netns/" in target
            ):
                yield f"{process.name} fd {descriptor.name} {target}"


def _below(directory: Path) -> Iterable[Path]:
    """Files and directories, without logs, which only grow."""
    # os.walk(), unlike rglob(), takes a directory that goes meanwhile for an empty one.
    below = (Path(parent, name) for parent, *names in os.walk(directory) for name in itertools.chain(*names))
    return (path for path in below if path.suffix != ".log")


def _loop_devices(marks: list[str]) -> Iterable[str]:
    """Loop devices (loop(4)) of files of the node's."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = _read(path).strip()
        if any(mark in file for mark in marks):
            yield f"{path.parent.parent.name} {file}"


def _shim_sockets(marks: list[str]) -> Iterable[str]:
    """Sockets of runc's shims, which are outside every private directory and are named by a hash."""
    for line in _read(Path("/proc/net/unix")).splitlines():
        path = line.split(" ")[-1]
        if any(mark in path for mark in marks[1:]):
            yield path
