"""contrib/systemd without a systemd that runs: its own programs read the units, and the daemon runs as they say.

What a unit makes around a service is made here by systemd-socket-activate, setpriv and a shell; that systemd does
the same with the unit is left to what `systemd-analyze` says.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest

from tests.integration import images, paths
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.couriers import a_place
from tests.integration.daemon import Daemon, environment, place
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.ready import eventually, served

pytestmark = pytest.mark.timeout(90)

UNITS = ("unikernel-shim.service", "unikernel-shim.socket")
#: The drop-in that leaves the daemon, and containers, fewer capabilities.
BOUNDS = "capabilities.conf"
_SOURCES = paths.ROOT / "contrib" / "systemd"
#: What `systemd-analyze security` may say at most, in tenths; docs/installing.md has the reasons.
_EXPOSURE, _BOUNDED_EXPOSURE = 96, 89


def directive(name: str) -> list[str]:
    """The words of a directive of the drop-in, of all its lines."""
    lines = (_SOURCES / BOUNDS).read_text().splitlines()
    return [word for line in lines if line.startswith(f"{name}=") for word in line.partition("=")[2].split()]


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as installed: `systemd-analyze` wants to find the program."""
    directory = tmp_path_factory.mktemp("units")
    for name in UNITS:
        text = (_SOURCES / name).read_text()
        for placeholder, value in {"BINDIR": paths.BIN, "SYSCONFDIR": "/etc", "PREFIX": "/opt/unikernel-shim"}.items():
            text = text.replace(f"@{placeholder}@", str(value))
        assert "@" not in text
        (directory / name).write_text(text)
    return directory


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [paths.program("systemd-analyze"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_systemd_has_nothing_to_say_against_the_units(units: Path) -> None:
    place()
    done = analyze("verify", "--man=no", *(str(units / name) for name in UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_as_little_exposed_as_is_said(units: Path) -> None:
    def exposed(service: Path, threshold: int) -> int:
        return analyze("security", "--offline=true", f"--threshold={threshold}", str(service)).returncode

    bounded = units / "bounded.service"
    bounded.write_text((units / UNITS[0]).read_text() + (_SOURCES / BOUNDS).read_text())
    assert (exposed(units / UNITS[0], _EXPOSURE), exposed(bounded, _BOUNDED_EXPOSURE)) == (0, 0)
    assert exposed(units / UNITS[0], _BOUNDED_EXPOSURE) != 0, "the drop-in is of no use"


#: What all containers would have as well, or what would hide the daemon's mounts from containerd and its successor.
_INHERITED = ("NoNewPrivileges", "SystemCall", "Restrict", "MemoryDeny", "LockPersonality", "UMask")
_MOUNTING = ("Protect", "Private", "ReadWritePaths", "ReadOnlyPaths", "Inaccessible", "MountFlags", "Bind", "Temporary")


def test_nothing_is_asked_for_that_containers_would_have_to_bear() -> None:
    names = {line.partition("=")[0] for line in (_SOURCES / UNITS[0]).read_text().splitlines() if "=" in line}
    assert not {name for name in names if name.startswith((*_INHERITED, *_MOUNTING)) and name != "RestartSec"}


class Manager:
    """systemd's ear."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(self.path))

    def heard(self, word: str, within: float = 20.0) -> dict[str, str]:
        """The next message that has `word`, as fields."""
        self._socket.settimeout(within)
        while True:
            fields = dict(line.partition("=")[::2] for line in self._socket.recv(4096).decode().splitlines())
            if word in fields:
                return fields

    def close(self) -> None:
        self._socket.close()


class Activated(Daemon):
    """A daemon that starts when somebody connects, with the capabilities that the drop-in leaves."""

    def __init__(self, node: Node, manager: Manager) -> None:
        super().__init__(node)
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        told = {**environment(self.config), "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000"}
        kept = ",".join(
            ["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in directive("CapabilityBoundingSet"))]
        )
        self._command = node.inside(
            paths.program("systemd-socket-activate"),
            *(f"--listen={path}" for path in (self.socket, self.ttrpc_socket)),
            *(f"--setenv={name}={value}" for name, value in told.items()),
            paths.program("setpriv"),
            f"--bounding-set={kept}",
            str(paths.DAEMON),
            "serve",
        )

    def listens(self) -> bool:
        """The sockets are there; connecting would start it."""
        return self.socket.is_socket() and self.ttrpc_socket.is_socket()


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Containerd, Activated, Manager]]:
    """A containerd, and beside it sockets that nobody has connected to."""
    with fresh_node("sd") as node, closing(Manager(node.base)) as manager:
        daemon, containerd = Activated(node, manager), Containerd(node)
        with running(daemon), running(containerd):
            yield containerd, daemon, manager


def test_the_first_pod_starts_the_daemon(site: tuple[Containerd, Activated, Manager]) -> None:
    containerd, daemon, manager = site
    assert b"systemd-socket-activate" in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    with containerd.cri.pod("unikernel"):  # over gRPC
        assert manager.heard("READY")["STATUS"] == "serving 0 pods"
        assert b"unikernel-shim" in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()


def test_pods_run_within_the_drop_ins_bounds(site: tuple[Containerd, Activated, Manager]) -> None:
    containerd, daemon, manager = site
    containerd.load(images.linux())
    with (
        LeakCheck(containerd.node, containerd),
        containerd.cri.pod("unikernel", annotations=images.LINUX_ANNOTATIONS) as pod,
        containerd.cri.pod("unikernel-podsandbox") as other,  # over ttrpc, by the courier
    ):
        unikernel = pod.run(images.LINUX)
        sidecar = other.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        assert containerd.cri.exec(sidecar, "echo", "inside").stdout == "inside\n"
        eventually(lambda: manager.heard("WATCHDOG")["STATUS"] == "serving 2 pods")
        assert served(containerd.node, pod.address)["address"] == pod.address
        containerd.cri.remove(unikernel)
    assert not (daemon.run_dir / "lock").exists(), "no courier found it away"


def test_the_bounds_are_the_drop_ins(site: tuple[Containerd, Activated, Manager]) -> None:
    _, daemon, _ = site
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines())
    mask = int(status["CapBnd"], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    decoded = subprocess.run(
        [paths.program("setpriv"), "--list-caps"], capture_output=True, text=True, check=True
    ).stdout.split()
    kept = {f"CAP_{name.upper()}" for number, name in enumerate(decoded[: last + 1]) if mask >> number & 1}
    assert "CAP_SYS_ADMIN" in kept and kept <= set(directive("CapabilityBoundingSet"))
    assert status["NoNewPrivs"] == "0" and status["Seccomp"] == "0"
    assert Path(f"/proc/{daemon.pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()


def test_a_privileged_container_wants_more_than_the_bounds(site: tuple[Containerd, Activated, Manager]) -> None:
    """Why the unit itself has no bounds."""
    containerd, _, _ = site
    with containerd.cri.pod("unikernel", security={"privileged": True}) as pod:
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        with pytest.raises(grpc.RpcError, match=r"(?i)caps: operation not permitted|capset"):
            pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"], privileged=True)


def test_the_end_is_told_and_the_sockets_stay(site: tuple[Containerd, Activated, Manager]) -> None:
    _, daemon, manager = site
    assert daemon.stop() == 0
    assert manager.heard("STOPPING")
    assert daemon.socket.is_socket() and daemon.ttrpc_socket.is_socket()
    assert not daemon.socket.with_suffix(".grpc").exists()


class Holder:
    """Sockets held as systemd holds them, and the service that it starts with them."""

    def __init__(self, run_dir: Path, config: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command line that runs another."""
        self._config, self._prefix = config, prefix
        self._log = config.with_suffix(".held.log")
        self._left = ExitStack()
        self._sockets = []
        run_dir.mkdir(mode=0o700, exist_ok=True)
        for name in ("shim.sock", "shim.ttrpc"):
            (run_dir / name).unlink(missing_ok=True)
            made = self._left.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(os.fspath(run_dir / name))
            made.listen(64)
            self._sockets.append(made)

    def start(self, within: float = 10.0) -> subprocess.Popen[bytes]:
        """Wait for somebody to connect, as systemd does, and start it."""
        assert select.select(self._sockets, [], [], within)[0], "nobody connects"
        numbers = [each.fileno() for each in self._sockets]
        # Descriptors 3 and 4 may be among those that are to be put there.
        put = "".join(f" {100 + index}<&{number}" for index, number in enumerate(numbers)) + " 3<&100 4<&101"
        script = f'exec{put} 100<&- 101<&-; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$0" serve'
        with self._log.open("ab") as log:
            service = subprocess.Popen(
                [*self._prefix, "/bin/bash", "-c", script, str(paths.DAEMON)],
                env={**os.environ, **environment(self._config)},
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._left.callback(service.wait)
        self._left.callback(service.terminate)
        return service

    def close(self) -> None:
        """End what was started, and let the sockets go."""
        self._left.close()


def test_couriers_wait_at_a_held_socket_and_start_no_daemon() -> None:
    place()
    with a_place() as where, closing(Holder(where.run_dir, where.config)) as holder, ThreadPoolExecutor(8) as pool:
        for life in range(2):
            asked = [pool.submit(where.courier, "-id", f"c{life}{number}", "start") for number in range(8)]
            service = holder.start()
            for run in asked:
                assert run.result().returncode == 0, run.result().stderr
                assert json.loads(run.result().stdout)["address"] == f"unix://{where.socket}"
            assert where.daemons() == {service.pid}
            # A new one goes on where the old one stopped, with whoever connected meanwhile.
            service.terminate()
            assert service.wait(10) == 0
        assert not (where.run_dir / "lock").exists() and not (where.run_dir / "daemon.log").exists()


def test_a_pod_that_is_wanted_while_the_daemon_is_away_waits_for_it(
    site: tuple[Containerd, Activated, Manager],
) -> None:
    """After the tests above: what they started has ended."""
    containerd, ended, _ = site
    assert not ended.runs
    cri, inside = containerd.cri, containerd.node.inside
    with closing(Holder(ended.run_dir, ended.config, inside())) as holder, ThreadPoolExecutor(1) as pool:
        first = pool.submit(cri.pod, "unikernel")
        service = holder.start()
        with first.result() as pod:
            service.terminate()
            assert service.wait(10) == 0
            second = pool.submit(cri.pod, "unikernel")
            holder.start()
            with second.result() as other:
                for each in (pod, other):
                    sidecar = each.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
                    assert cri.exec(sidecar, "echo", "inside").stdout == "inside\n"
