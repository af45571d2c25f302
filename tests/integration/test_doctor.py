"""`unikernel-shim doctor` on a node that is right, and on one with each thing missing in turn.

What is missing is hidden in a mount namespace of the run's own, so that nobody else misses it. The runs are made once,
and each test looks at one of them. A cluster cannot be had here: kubectl is a stub that says what the real one would.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shim.doctor import containerd as process
from shim.doctor import containerd_config, containerd_settings, programs, stanzas
from tests.integration import paths
from tests.integration.containerd import LINES, Containerd
from tests.integration.daemon import Daemon
from tests.integration.node import cgroup_roots
from tests.integration.pseudo import OnTerminal

pytestmark = pytest.mark.timeout(120)

Findings = dict[str, dict[str, str]]


class Run:
    """One run: its exit code and its findings by area and subject."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        said = json.loads(done.stdout)
        self.code = done.returncode
        self.findings: Findings = {f"{each['area']} {each['subject']}": each for each in said["findings"]}

    def outcome(self, name: str) -> str:
        """A finding's outcome; an AssertionError shows all that there are."""
        assert name in self.findings, self.findings.keys()
        return self.findings[name]["outcome"]

    def bad(self) -> set[str]:
        """What keeps pods from running."""
        return {name for name, each in self.findings.items() if each["outcome"] == "bad"}


def doctor(config: Path, *, before: str = "", prefix: str = "", words: str = "", path: str = "") -> Run:
    """Run it in a mount namespace of its own, where the shell's `before` hides things; `prefix` is a command that runs
    it, `path` what is looked into before PATH."""
    shim = f"{paths.BIN / 'python3'} -m shim.cli.main --config {config} doctor --json {words}"
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{before}\nexec {prefix} {shim}"],
        capture_output=True, text=True, timeout=60, check=False, cwd=paths.ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "KUBECONFIG": "/none", "PATH": search},
    )  # fmt: skip
    return Run(done)


def hiding(*programs: str) -> str:
    """The shell's words that make programs, by name, impossible to run: what lies over them is no program."""
    found = (shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in programs)
    return "\n".join(f"mount --bind /dev/null {Path(path).resolve()}" for path in found if path)


def bare_dev(more: str) -> str:
    """The shell's words for a /dev that has only what programs take for granted, and `more`."""
    return f"""
mount -t tmpfs none /mnt
for each in null zero full random urandom tty {more}; do cp -a /dev/$each /mnt/; done
mount --move /mnt /dev
"""


# Another user, who may read the checkout wherever that is, and write or connect nowhere.
_STRANGER = (
    "setpriv --reuid 65534 --regid 65534 --clear-groups"
    " --inh-caps +dac_read_search --ambient-caps +dac_read_search --bounding-set -all,+dac_read_search"
)
# A socket that nobody listens at any more.
_DEAD = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"


@pytest.fixture(scope="module", autouse=True)
def traces() -> Iterator[None]:
    """Nothing is left: no interface, process, cgroup or file of a run's."""

    def found() -> set[str]:
        places = (Path("/dev/shm"), Path(tempfile.gettempdir()))
        left = {str(path) for place in places for path in place.glob(f"{programs.BENCH}*")}
        left |= {str(path) for root in cgroup_roots() for path in root.glob("unikernel-shim-probe-*")}
        left |= {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("doctor")}
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        return left | {line for line in lines if "shim.cli.main" in line and "doctor" in line}

    before = found()
    yield
    assert not found() - before


@pytest.fixture(scope="module")
def runs(daemon: Daemon, containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Run]:
    """A run for each thing that is missing, on a node where containerd and the daemon run."""
    directory = tmp_path_factory.mktemp("doctor")
    run_dir, storage, node = daemon.run_dir, daemon.storage, daemon.config
    storage.mkdir(exist_ok=True)
    wrong, torn = directory / "wrong.toml", directory / "torn.toml"
    wrong.write_text(node.read_text() + "\n[frobnicate]\n")
    torn.write_text("version = ")
    fresh = f"mount -t tmpfs -o mode=700 none {run_dir}"
    qemu = hiding("qemu-system-x86_64", "qemu-system-aarch64")
    wanted: dict[str, Callable[[], Run]] = {
        "nothing": lambda: doctor(node, path=kubectl(directory)),
        "root": lambda: doctor(node, prefix=_STRANGER),
        "kvm": lambda: doctor(node, before=bare_dev("net")),
        "tun": lambda: doctor(node, before=bare_dev("kvm")),
        "cgroups": lambda: doctor(node, before="umount --recursive --lazy /sys/fs/cgroup"),
        "engines": lambda: doctor(node, before=hiding("crun", "runc")),
        "crun": lambda: doctor(node, before=hiding("crun")),
        "monitors": lambda: doctor(wrong_monitors(node, directory), before=qemu),
        "tools": lambda: doctor(node, before=hiding("xorriso", "mke2fs", "mksquashfs", "mkfs.erofs", "kubectl")),
        "read-only": lambda: doctor(
            node, before=f"mount --bind {run_dir} {run_dir}; mount -o remount,bind,ro {run_dir}"
        ),
        "full": lambda: doctor(node, before=f"{fresh} -o size=16k"),
        "storage": lambda: doctor(node, before=f"mount -t tmpfs -o ro none {storage}"),
        "daemon": lambda: doctor(node, before=fresh),
        "dead": lambda: doctor(node, before=f"{fresh}; python3 -c '{_DEAD}' {run_dir}/shim.sock"),
        "configuration": lambda: doctor(wrong),
        "containerd": lambda: doctor(node, words="--containerd /no/such.sock"),
        "containerd's configuration": lambda: doctor(node, words=f"--containerd-config {torn}"),
        "courier": lambda: doctor(node, before=f"mount --bind /dev/null {paths.COURIER}"),
    }
    with ThreadPoolExecutor(3) as pool:
        begun = {name: pool.submit(run) for name, run in wanted.items()}
        return {name: future.result() for name, future in begun.items()}


def kubectl(directory: Path) -> str:
    """A directory with a kubectl that knows one RuntimeClass."""
    listed = {"metadata": {"name": "uk"}, "handler": "unikernel", "overhead": {"podFixed": {"memory": "88Mi"}}}
    script = directory / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps({'items': [listed]}))}\n")
    script.chmod(0o755)
    return str(script.parent)


def wrong_monitors(node: Path, directory: Path) -> Path:
    """The node's configuration, less the doubles of monitors that it names."""
    file = directory / "monitors.toml"
    file.write_text(re.sub(r"(?m)^path = .*/.*$", 'path = "/none"', node.read_text()))
    return file


def test_a_node_as_it_should_be(runs: Mapping[str, Run], containerd: Containerd, daemon: Daemon) -> None:
    run = runs["nothing"]
    assert run.code == 0 and not run.bad()
    seen = ["kernel bridge", "kernel traffic control", "kernel macvtap", "devices /dev/net/tun", "service daemon"]
    seen += ["containerd version", "containerd shim binary", "containerd handler unikernel", "cluster RuntimeClass uk"]
    seen += [f"containerd handler unikernel-{way}" for way in ("shim", "podsandbox", "streaming", "routed")]
    assert {name: run.outcome(name) for name in seen} == dict.fromkeys(seen, "good")
    assert containerd.version.split("+")[0] in run.findings["containerd version"]["what"]
    assert any(run.outcome(f"engine {name}") == "good" for name in ("crun", "runc"))
    assert "guests run under" in run.findings["monitors qemu"]["what"]
    assert str(daemon.config) in run.findings["service configuration"]["what"]


@pytest.mark.parametrize(
    ("missing", "bad"),
    [
        ("tun", {"devices /dev/net/tun"}),
        ("cgroups", {"kernel cgroups", "engine crun", "engine runc"}),
        ("engines", {"engine crun", "engine runc"}),
        ("monitors", {f"monitors {name}" for name in ("spt", "hvt", "qemu", "firecracker", "cloud-hypervisor")}),
        ("read-only", {"storage RUN"}),
        ("full", {"storage RUN", "service daemon"}),  # its sockets are hidden, too
        ("daemon", {"service daemon"}),
        ("dead", {"service daemon"}),
        ("configuration", {"service configuration"}),
        ("containerd", {"containerd version"}),
        ("containerd's configuration", {"containerd torn.toml"}),
    ],
)
def test_what_keeps_pods_from_running(missing: str, bad: set[str], runs: Mapping[str, Run], daemon: Daemon) -> None:
    run = runs[missing]
    assert run.code == 1
    names = {name.replace("RUN", str(daemon.run_dir)) for name in bad}
    assert names <= run.bad()
    assert missing in ("configuration", "containerd") or names == run.bad()
    assert all(run.findings[name]["why"] and run.findings[name]["fix"] for name in names)


@pytest.mark.parametrize(
    ("missing", "outcomes"),
    [
        ("kvm", {"devices /dev/kvm": "doubtful"}),
        ("crun", {"engine crun": "absent", "engine runc": "good"}),
        (
            "tools",
            {f"storage {name}": "absent" for name in ("xorriso", "mke2fs", "mksquashfs", "mkfs.erofs")}
            | {"cluster RuntimeClass": "not looked at"},
        ),
        ("storage", {"storage STORAGE": "doubtful"}),
        (
            "courier",
            {
                "containerd shim binary": "doubtful",
                "containerd handler unikernel": "good",
                "containerd handler unikernel-shim": "doubtful",
            },
        ),
        (
            "root",
            {
                "kernel capabilities": "not looked at",
                "kernel traffic control": "not looked at",
                "devices /dev/net/tun": "not looked at",
                "engine runc": "not looked at",
                "service daemon": "not looked at",
                "containerd version": "not looked at",
                "monitors qemu": "good",
            },
        ),
    ],
)
def test_what_pods_can_do_without(
    missing: str, outcomes: dict[str, str], runs: Mapping[str, Run], daemon: Daemon
) -> None:
    run = runs[missing]
    wanted = {name.replace("STORAGE", str(daemon.storage)): outcome for name, outcome in outcomes.items()}
    assert {name: run.outcome(name) for name in wanted} == wanted
    if missing != "root":
        assert run.code == 0 and not run.bad()


TABLES = {"3": "io.containerd.cri.v1.runtime", "2": "io.containerd.grpc.v1.cri", "1": "cri"}


def stanza(version: str, name: str, more: str = "") -> str:
    """A handler of ours as configurations of that version have it."""
    header = f'[plugins."{TABLES[version]}".containerd.runtimes.{name}]'
    return f'{header}\nruntime_type = "io.containerd.unikernel.v2"\n{more}\n'


#: containerd's configurations: the main file, and others by their names.
FILES: dict[str, dict[str, str]] = {
    "version 3": {"": "version = 3\n" + stanza("3", "one", 'sandboxer = "shim"')},
    "version 2": {"": "version = 2\n" + stanza("2", "one")},
    "version 1": {"": "version = 1\n" + stanza("1", "one")},
    "no version": {"": stanza("1", "one") + stanza("2", "two")},
    "version 9": {"": "version = 9\n"},
    "another version's table": {"": "version = 3\n" + stanza("2", "one")},
    "a table of the future": {"": "version = 2\n" + stanza("3", "one")},
    "a plugin": {"": 'version = 2\n[proxy_plugins.x]\ntype = "sandbox"\naddress = "/x"\n'},
    "imports of one version": {
        "": 'version = 2\nimports = ["conf.d/*.toml"]\n' + stanza("2", "one"),
        "conf.d/a.toml": "version = 2\n" + stanza("2", "two"),
        "conf.d/b.toml": "version = 2\n" + stanza("2", "three"),
    },
    "a newer import": {
        "": 'version = 2\nimports = ["conf.d/*.toml"]\n' + stanza("2", "one"),
        "conf.d/a.toml": "version = 3\n" + stanza("3", "two"),
    },
    "an older import": {
        "": 'version = 3\nimports = ["conf.d/a.toml"]\n' + stanza("3", "one"),
        "conf.d/a.toml": "version = 2\n" + stanza("2", "two"),
    },
    "an import without a version": {
        "": 'version = 3\nimports = ["conf.d/a.toml"]\n' + stanza("3", "one"),
        "conf.d/a.toml": stanza("3", "two"),
    },
    "an import that adds to a table": {
        "": 'version = 3\nimports = ["a.toml"]\n' + stanza("3", "one"),
        "a.toml": 'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.one]\nsandboxer = "shim"\n',
    },
    "an import of an import": {
        "": 'version = 3\nimports = ["d/a.toml"]\n',
        "d/a.toml": 'version = 3\nimports = ["b.toml"]\n',
        "d/b.toml": "version = 3\n" + stanza("3", "one"),
    },
}


def laid_out(directory: Path, files: Mapping[str, str]) -> Path:
    """Write a configuration; its main file."""
    for name, text in files.items():
        file = directory / (name or "config.toml")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return directory / "config.toml"


def in_force(line: str, main: Path) -> dict[str, str] | None:
    """Our handlers and their sandboxers as containerd itself puts the files together; None where it does not start."""
    program = paths.cached(f"containerd-{line}", "usr", "bin", "containerd")
    dump = subprocess.run([program, "--config", main, "config", "dump"], capture_output=True, text=True, check=False)
    if dump.returncode != 0:
        return None
    plugins = tomllib.loads(dump.stdout)["plugins"]
    section = plugins.get("io.containerd.cri.v1.runtime") or plugins["io.containerd.grpc.v1.cri"]
    runtimes = section["containerd"]["runtimes"]
    return {
        name: entry.get("sandboxer") or "podsandbox"
        for name, entry in runtimes.items()
        if entry["runtime_type"] == "io.containerd.unikernel.v2"
    }


def version_of(line: str) -> tuple[int, int]:
    return {"1.6": (1, 6), "1.7": (1, 7), "2": (2, 1)}[line]  # of the cache's lines (tests/setup)


def settings(line: str, main: Path) -> containerd_settings.Settings:
    """The same as doctor puts them together."""
    return containerd_settings.settle(process.read(main, version_of(line)), version_of(line))


COURIER = containerd_config.Courier(path="/usr/local/bin/containerd-shim-unikernel-v2")
SOCKET = Path("/run/unikernel-shim/shim.sock")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_files_are_put_together_as_containerd_does(files: dict[str, str], line: str, tmp_path: Path) -> None:
    main = laid_out(tmp_path, files)
    theirs, ours = in_force(line, main), settings(line, main)
    if theirs is None:
        findings = containerd_config.judge(ours, SOCKET, COURIER)
        assert [each for each in findings if each.outcome == "bad" and "does not start" in each.why], findings
        return
    handlers = containerd_settings.handlers(ours)
    assert dict(zip([each.name for each in handlers], containerd_settings.sandboxers(ours), strict=True)) == theirs


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"": "version = 2\n"},
        {"": 'version = 2\nimports = ["d/*.toml"]\n', "d/x.toml": 'version = 2\nroot = "/x"\n'},
        {"": ""},
    ],
    ids=["no file", "bare", "imports", "empty"],
)
def test_what_it_prints_to_add_does_it(files: dict[str, str], line: str, tmp_path: Path) -> None:
    main = laid_out(tmp_path, files)
    (said,) = (
        each for each in containerd_config.judge(settings(line, main), SOCKET, COURIER) if each.subject == "handler"
    )
    words, _, last = said.fix.rpartition("\n")
    assert last == "systemctl restart containerd"
    subprocess.run(["sh", "-ec", words], check=True)
    assert in_force(line, main) == {"unikernel": "unikernel" if line == "2" else "podsandbox"}
    now = containerd_config.judge(settings(line, main), SOCKET, COURIER)
    assert [each.outcome for each in now] == ["good"], now


@pytest.mark.parametrize("columns", [60, 200])
def test_on_a_terminal(columns: int, daemon: Daemon, containerd: Containerd, tmp_path: Path) -> None:
    """What people read wraps in its column; what they copy has its lines as they are."""
    bare = laid_out(tmp_path, {"": "version = 3\n"})
    words = ["--config", str(daemon.config), "doctor", "--containerd-config", str(bare)]
    argv = [str(paths.DAEMON), *words]
    with OnTerminal(argv, columns=columns, env={"KUBECONFIG": "/none"}) as terminal:
        assert terminal.finish() == 1
        lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.raw.decode()).split("\r\n")
        assert b"\x1b[1;31m" in terminal.raw and b"\x1b[32m" in terminal.raw
    stanza = stanzas.stanza("unikernel", stanzas.RUNTIME_TABLE, daemon.run_dir / "shim.sock").splitlines()
    assert set(stanza) <= set(lines)
    block = lines.index(f"cat >>{bare} <<'EOF'")
    assert all(len(line) <= columns for line in lines[:block])
    assert lines[-2].startswith("pods cannot run: 1 bad")
