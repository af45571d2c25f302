"""A node of our own: a network namespace with the machine's part of pod networking in it, and a directory.

containerd, the daemon and the CNI plugins run inside, so bridges, host routes and blackholes never touch the machine's
own network, and a leak is a leak: nobody else makes anything here. Only the network is separate. Mounts are the
machine's, since containerd and the daemon must see each other's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.integration import paths

#: The two kinds of cluster network: one subnet behind a bridge, and a /32 behind an off-link gateway.
SUBNET = "10.88.0.0/24"
BLOCK = "10.77.0.64/26"
#: The node's own address and its router, which is not there (RFC 5737).
NODE = "192.0.2.10"
NEXT_HOP = "192.0.2.1"

# Bare, so that it is quick; static busybox's own wget needs name-service files even for an address.
_FETCH = """
import sys, socket
host, port, path, timeout = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
with socket.create_connection((host, port), timeout) as connection:
    connection.sendall(f"GET {path} HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    data = b""
    while part := connection.recv(65536):
        data += part
head, _, body = data.partition(b"\\r\\n\\r\\n")
if b" 200 " not in head.splitlines()[0] + b" ":
    sys.exit(head.decode())
sys.stdout.write(body.decode())
"""


class Node:
    """`token` is in every name the node makes; `base` holds all its files. Use it as a context."""

    def __init__(self, area: str = "t", subnet: str = SUBNET) -> None:
        """`subnet` is the pods' in the layouts `subnet` and `ports`: all but its last addresses are for the former."""
        self.subnet = ip_network(subnet)
        self.token = f"uks{area}{uuid.uuid4().hex[:6]}"
        self.netns = self.token
        self.base = Path(tempfile.mkdtemp(prefix=f"{self.token}-", dir=paths.TEMPORARY))
        self.base.chmod(0o711)  # monitors and pods with another user must reach what lies below
        self.cni_bin = self.base / "cni-bin"

    def __enter__(self) -> Node:
        subprocess.run([paths.program("ip"), "netns", "add", self.netns], check=True)
        try:
            self._set_up()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _set_up(self) -> None:
        self.run("ip", "link", "set", "lo", "up")
        # An uplink with a default route, as any node has: proxy ARP answers only for what the node has a route to.
        self.run("ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1")
        settings = {"ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0"}
        # A link-local address that appears by itself, after a while, looks like a leak.
        settings |= {f"ipv6/conf/{link}/disable_ipv6": "1" for link in ("uplink0", "uplink1")}
        for name, value in settings.items():
            self.run("sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        self.run("ip", "link", "set", "uplink1", "up")
        self.run("ip", "address", "add", f"{NODE}/24", "dev", "uplink0")
        self.run("ip", "link", "set", "uplink0", "up")
        self.run("ip", "route", "add", "default", "via", NEXT_HOP, "dev", "uplink0")
        self._write_networks()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_processes()
        self._remove_cgroups()
        subprocess.run([paths.program("ip"), "netns", "delete", self.netns], check=True)
        # What a failed test left mounted below must not be walked into by the removal.
        for point in reversed([point for point in mounts() if Path(point).is_relative_to(self.base)]):
            subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(self.base)

    def processes(self) -> list[int]:
        """Every process in the node's network or in a cgroup of its pods."""
        network = (Path("/run/netns") / self.netns).stat().st_ino
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    inside = (process / "ns" / "net").stat().st_ino == network
                    if inside or self.token in (process / "cgroup").read_text():
                        found.append(int(process.name))
                except OSError:
                    continue
        return found

    def _end_processes(self) -> None:
        # A daemon that a courier started is nobody's child; and a failed test may leave its pods running.
        for number, wait in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + wait
            while self.processes() and time.monotonic() < deadline:
                time.sleep(0.02)

    @property
    def cgroup_parent(self) -> str:
        """The cgroup that the node's pods go under."""
        return f"/{self.token}"

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in the node's network, and nothing else changed."""
        return ["nsenter", f"--net=/run/netns/{self.netns}", "--", *command]

    def run(self, *command: str, check: bool = True, timeout: float = 30) -> str:
        """Run a command in the node's network; its output. Raises AssertionError with both outputs if it fails."""
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        """`ip -json` in the node's network."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-json", *arguments) or "[]")
        return [entry for entry in found if entry]

    def fetch(self, address: str, path: str = "/", *, port: int = 80, timeout: float = 5) -> str:
        """GET over HTTP from the node, the pods' router. Raises AssertionError with the reason."""
        return self.run("python3", "-ISc", _FETCH, address, str(port), path, str(timeout), timeout=timeout + 5)

    def ping(self, address: str, *, wait: int = 2) -> bool:
        """Whether one ping from the node is answered within `wait` seconds."""
        command = self.inside("ping", "-c", "1", "-W", str(wait), address)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def neighbour(self, address: str) -> str:
        """The MAC the node's neighbour table has for `address`, or an empty string."""
        return next((n.get("lladdr", "") for n in self.ip("neighbour", "show") if n["dst"] == address), "")

    def _write_networks(self) -> None:
        """The CNI configurations, one directory each, and the plugins they name in one directory."""
        self.cni_bin.mkdir()
        for plugin in paths.cached("cni", "usr", "lib", "cni").iterdir():
            (self.cni_bin / plugin.name).symlink_to(plugin)
        (self.cni_bin / "calico_like").symlink_to(Path(__file__).parent / "cni" / "calico_like")
        for layout, plugins in self._networks().items():
            directory = self.cni_conf(layout)
            directory.mkdir(parents=True)
            conflist = {"cniVersion": "1.0.0", "name": f"{self.token}-{layout}", "plugins": plugins}
            (directory / "10-pods.conflist").write_text(json.dumps(conflist, indent=2))

    def cni_conf(self, layout: str) -> Path:
        """The CNI configuration directory of a layout: `subnet`, `routed` or `ports`."""
        return self.base / "cni" / layout

    def _networks(self) -> dict[str, list[dict[str, Any]]]:
        def bridge(first: int, last: int) -> dict[str, Any]:
            # Two networks on one bridge: each keeps account of its own part of the subnet.
            part = {"rangeStart": str(self.subnet[first]), "rangeEnd": str(self.subnet[last])}
            ipam = {
                "type": "host-local",
                "dataDir": str(self.base / "ipam"),
                "ranges": [[{"subnet": str(self.subnet), **part}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }
            # The masquerade rules show whether the plugin's DEL still found what it needs on eth0.
            how = {"isGateway": True, "ipMasq": True, "hairpinMode": True}
            return {"type": "bridge", "bridge": "cni0", **how, "ipam": ipam}

        return {
            "subnet": [bridge(2, -57)],
            "routed": [{"type": "calico_like", "block": BLOCK, "data_dir": str(self.base / "block")}],
            "ports": [bridge(-56, -6), {"type": "portmap", "capabilities": {"portMappings": True}}],
        }

    def cgroups(self) -> list[Path]:
        """The pods' parent cgroup in every hierarchy that has it."""
        return [root / self.token for root in cgroup_roots() if (root / self.token).is_dir()]

    def _remove_cgroups(self) -> None:
        # The parent is the kubelet's to remove, here ours; anything still below it has been reported already.
        self.remove_cgroups("")

    def remove_cgroups(self, below: str) -> None:
        """Remove a cgroup below the pods' parent, as the kubelet does a pod's; what is still in use stays."""
        for parent in (parent / below for parent in self.cgroups()):
            for directory, _, _ in os.walk(parent, topdown=False):
                try:
                    Path(directory).rmdir()
                except OSError:
                    continue


def mounts() -> list[str]:
    """The mount points of this mount namespace, in the order they were made (proc(5), mountinfo)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]


def cgroup_roots() -> list[Path]:
    """The root of every cgroup hierarchy, v1 and v2."""
    lines = [line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(left.split(" ")[4]) for left, _, right in lines if right.split(" ")[0] in ("cgroup", "cgroup2")]
