"""A node to be hurt: its containerd, its daemon, its run directory's disk, its engine. Each can end and come back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shim import faults as dying
from tests.chaos.disk import RunDisk
from tests.chaos.engine import FaultyEngine
from tests.integration import tender_double
from tests.integration.conftest import fresh_node
from tests.integration.containerd import Containerd
from tests.integration.cri import Client
from tests.integration.daemon import Daemon
from tests.integration.node import Node, cgroup_roots, mounts
from tests.integration.process import Server, answers

#: Seconds that one run of the engine may take here: shorter than some of its hangs.
ENGINE_TIMEOUT = 2.0
_UP = 20.0  # seconds until a server must serve


class Site:
    """Servers are ended and started by one thread at a time; everything else asks containerd and the daemon freely."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.disk = RunDisk(node.base / "run", node.base / "run.img")
        self.disk.mount()
        self.engine = FaultyEngine(node.base)
        more = f'\n[engine]\npath = "{self.engine.path}"\ntimeout = {ENGINE_TIMEOUT}\n'
        self.daemon = Daemon(node, more=more)
        self.containerd = Containerd(node)
        self._turn = threading.RLock()

    def client(self, timeout: float) -> Client:
        """A kubelet's connection of its own, which remembers no containerd that was away."""
        made = Client(
            self.containerd.socket, self.node.base / "logs", cgroup_parent=self.node.cgroup_parent, timeout=timeout
        )
        made.made = self.containerd.cri.made
        return made

    def daemons(self) -> list[int]:
        """Whoever serves on the node: a courier may have started one."""
        found = []
        for pid in self.node.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"serve" in words and any(word.endswith(b"/unikernel-shim") for word in words):
                    found.append(pid)
        return found

    def end_daemon(self, signum: signal.Signals, *, within: float = 15.0) -> None:
        """Signal every daemon; wait until those are gone, and kill what is not after `within` seconds."""
        with self._turn:
            ending = self.daemons()
            for number in (signum, signal.SIGKILL):
                for pid in ending:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                deadline = time.monotonic() + within
                while (ending := [pid for pid in ending if self._lives(pid)]) and time.monotonic() < deadline:
                    time.sleep(0.01)

    def start_daemon(self, *, dies_at: int = 0) -> None:
        """Unless one serves already. `dies_at` is the step of its journals that kills it, 0 for none."""
        with self._turn:
            deadline = time.monotonic() + _UP
            while not answers(self.daemon.socket):
                if not self.daemon.runs:
                    self.daemon.spawn(**({dying.VARIABLE: str(dies_at)} if dies_at else {}))
                assert time.monotonic() < deadline, f"the daemon does not serve\n{self.daemon.tail()}"
                time.sleep(0.02)

    def kill_containerd(self) -> None:
        """SIGKILL."""
        with self._turn:
            if self.containerd.runs:
                self.containerd.kill()

    def start_containerd(self) -> None:
        """Unless it runs; returns once CRI is ready."""
        with self._turn:
            if not self.containerd.runs:
                Server.start(self.containerd, within=_UP)
            deadline = time.monotonic() + _UP
            while True:
                client = self.client(2)
                self.containerd.cri = client
                if self.containerd.ready():
                    return
                client.close()
                assert time.monotonic() < deadline, f"CRI is not ready\n{self.containerd.tail()}"
                time.sleep(0.05)

    def heal(self) -> None:
        """No disk and no engine is in trouble, and both servers run."""
        self.disk.heal()
        self.engine.heal()
        self.start_daemon()
        self.start_containerd()

    def own_daemon(self) -> None:
        """Have a daemon that a courier started replaced by one of ours: its log keeps the disk writable."""
        with self._turn:
            if not self.daemon.runs or self.daemons() != [self.daemon.pid]:
                self.end_daemon(signal.SIGTERM)
                self.start_daemon()

    def reboot(self) -> None:
        """Everything of the node ends at once, and what is not on its disk is gone; nothing is started."""
        with self._turn:
            self.disk.heal()
            self._thaw()
            deadline = time.monotonic() + 10
            # One that is dying has neither a namespace nor a cgroup any more; so our own are asked for besides.
            while (running := self.node.processes()) or self.daemon.runs or self.containerd.runs:
                for pid in running:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                assert time.monotonic() < deadline, f"these do not die: {running}"
                time.sleep(0.01)
            base = self.node.base
            for point in reversed([point for point in mounts() if Path(point).is_relative_to(base)]):
                subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
            shutil.rmtree(self.containerd.state, ignore_errors=True)
            self._remove_cgroups()
            self._forget_network()
            self.disk.mount()

    def _forget_network(self) -> None:
        for table in ("nat", "filter"):
            for flag in ("-F", "-X"):
                self.node.run("iptables", "-t", table, flag, check=False)
        self.node.run("ip", "link", "delete", "cni0", check=False)
        # The peer of a veth whose namespace is gone goes with it, but when the kernel finds time.
        for link in self.node.ip("link", "show", "type", "veth"):
            if not link["ifname"].startswith("uplink"):
                self.node.run("ip", "link", "delete", link["ifname"], check=False)

    def _remove_cgroups(self) -> None:
        for parent in self.node.cgroups():
            for directory, _, _ in os.walk(parent, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()

    def _thaw(self) -> None:
        for root in cgroup_roots():
            for state in (root / self.node.token).glob("*/freezer.state"):
                with contextlib.suppress(OSError):
                    state.write_text("THAWED")
            for state in (root / self.node.token).glob("*/cgroup.freeze"):
                with contextlib.suppress(OSError):
                    state.write_text("0")

    @staticmethod
    def _lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False


@contextmanager
def site() -> Iterator[Site]:
    """One that serves, with the images; everything of it is removed."""
    with fresh_node("chaos") as node:
        made = Site(node)
        try:
            made.start_daemon()
            made.containerd.start()
            made.containerd.load(tender_double.image())
            yield made
        finally:
            # The quickest end, and one that a site in any state can have.
            made.engine.heal()
            made.reboot()
            made.disk.unmount()
