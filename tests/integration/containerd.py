"""A private containerd of a chosen version on a node of ours, with this runtime registered in every way.

Runtime handlers, each also as `NAME-routed` for the /32 layout and as `NAME-ports` for host ports (the plain ones are
on the subnet):

    runc                    ordinary pods
    unikernel               the daemon as a sandbox plugin; containerd 2.x only
    unikernel-shim          the shim binary, which makes the sandbox itself; containerd 2.x only
    unikernel-podsandbox    the shim binary and a pause container

`unikernel-streaming` and `unikernel-shim-streaming` have their containers' IO over the sandbox's address (`io_type`).
"""

from __future__ import annotations

import os
import subprocess
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import tomli_w

from tests.integration import images, paths
from tests.integration.cri import Client
from tests.integration.node import Node, mounts
from tests.integration.process import Server

#: What users register the runtime with; the tests' handlers are made from it.
CONTRIB = paths.ROOT / "contrib" / "containerd"
#: The cache's directory per line of versions.
LINES = ("1.6", "1.7", "2")
LAYOUTS = {"subnet": "", "routed": "-routed"}
#: Every pod network by what it adds to a handler's name: `ports` is the subnet with the reference plugin `portmap`.
NETWORKS = {**LAYOUTS, "ports": "-ports"}


def handler(runtime: str, layout: str) -> str:
    """The runtime handler that runs `runtime` in the layout."""
    return runtime + NETWORKS[layout]


class Containerd(Server):
    """containerd of the line `1.6`, `1.7` or `2`. `start` also imports the images every test needs."""

    def __init__(
        self,
        node: Node,
        line: str = "2",
        *,
        config: Path | None = None,
        name: str = "containerd",
        collector: str = "",
        env: Mapping[str, str] | None = None,
        level: str = "debug",
        handlers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`config` is the daemon's configuration, for the couriers that this containerd will run; `collector` where its
        traces go, an OTLP endpoint; `env` goes into its environment; `level` is the log's; `handlers` are further
        runtime handlers' settings by name."""
        self.line = line
        self._collector = collector
        self.bin = paths.cached(f"containerd-{line}", "usr", "bin")
        versions = (paths.cached(f"containerd-{line}") / "VERSIONS").read_text().split()
        self.version = versions[versions.index("containerd") + 1].partition("+")[0].partition("~")[0]
        socket = node.base / "containerd.sock"
        self.state = node.base / "state"
        self.root = node.base / f"root-{line}"
        file = node.base / f"{name}.toml"
        self._level = level
        file.write_text(self._config(node, socket, handlers or {}))
        env = {
            **(env or {}),
            "PATH": f"{self.bin}:{paths.BIN}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "UNIKERNEL_SHIM_CONFIG": str(config or node.base / "daemon.toml"),
        }
        if collector:
            env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        else:
            # Otherwise each start asks the machine's metadata and tracing services.
            env["OTEL_SDK_DISABLED"] = "true"
        super().__init__(node, name, [str(self.bin / "containerd"), "--config", str(file)], socket, env)
        self.cri = Client(socket, node.base / "logs", cgroup_parent=node.cgroup_parent)

    def start(self, *, within: float = 20.0) -> None:
        """Start it, wait for CRI, import busybox and the pause image."""
        super().start(within=within)
        deadline = time.monotonic() + within
        while not self.ready():
            assert time.monotonic() < deadline, f"CRI is not ready\n{self.tail()}"
            time.sleep(0.05)
        self.load(images.busybox(), images.pause())

    def stop(self, *, within: float = 10.0) -> int:
        """Remove every pod, then stop it. Couriers' daemons are not its children and stay."""
        if self._process is not None and self._process.poll() is None:
            self.cri.remove_everything()
        return super().stop(within=within)

    def ctr(self, *arguments: str, namespace: str = "k8s.io", check: bool = True, timeout: float = 60) -> str:
        """`ctr` of the same version against it; its output. Raises AssertionError with both outputs if it fails."""
        command = self.node.inside(str(self.bin / "ctr"), "-a", str(self.socket), "-n", namespace, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=self._env, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"ctr {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.tail(20)}"
        return done.stdout

    def load(self, *wanted: images.Image, namespace: str = "k8s.io") -> None:
        """Import images, and wait until CRI sees them."""
        pb = self.cri.messages
        for image in wanted:
            archive = image.archive(self.node.base)
            self.ctr("images", "import", str(archive), namespace=namespace)
            archive.unlink()
            request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image.reference))
            deadline = time.monotonic() + 10
            while namespace == "k8s.io" and not self.cri.call("ImageStatus", request).image.id:
                assert time.monotonic() < deadline, f"CRI does not see {image.reference}\n{self.tail()}"
                time.sleep(0.02)

    def netns(self, address: str) -> Path:
        """The network namespace of the pod that has `address` on its eth0. Ask before a unikernel takes the address.

        Raises LookupError.
        """
        pods = (Path(point) for point in mounts() if Path(point).is_relative_to(self.node.base / "state"))
        for point in (point for point in pods if point.parent.name == "netns"):
            if f"inet {address}/" in self.node.run("nsenter", f"--net={point}", "ip", "-o", "address", "show"):
                return point
        raise LookupError(f"no pod's namespace has {address}")

    def ready(self) -> bool:
        """Whether CRI has its runtime and its network."""
        try:
            conditions = self.cri.call("Status", timeout=2).status.conditions
        except grpc.RpcError:
            return False
        return all(condition.status for condition in conditions if condition.type in ("RuntimeReady", "NetworkReady"))

    def _config(self, node: Node, socket: Path, more: Mapping[str, Mapping[str, Any]]) -> str:
        v3 = self.line == "2"
        runtime = "io.containerd.cri.v1.runtime" if v3 else "io.containerd.grpc.v1.cri"
        # runc works in every cgroup layout, and crun not (FACTS); the engine under test is the daemon's choice.
        handlers: dict[str, Mapping[str, Any]] = {
            "runc": {"runtime_type": "io.containerd.runc.v2"},
            **registered(self.line),
            **more,
        }
        for name in ("unikernel", "unikernel-shim") if v3 else ():
            handlers[f"{name}-streaming"] = {**handlers[name], "io_type": "streaming"}
        runtimes = {
            f"{name}{suffix}": {**settings, "cni_conf_dir": str(node.cni_conf(layout))}
            for name, settings in handlers.items()
            for layout, suffix in NETWORKS.items()
        }
        tables = tomli_w.dumps({"plugins": {runtime: {"containerd": {"runtimes": runtimes}}}})
        return (self._v3 if v3 else self._v2)(node, socket) + tables

    def _common(self, node: Node, socket: Path, version: int) -> str:
        tracing = (
            [] if self._collector else ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
        )
        return f"""\
version = {version}
root = "{self.root}"
state = "{self.state}"
disabled_plugins = {tracing}

[grpc]
address = "{socket}"

[debug]
level = "{self._level}"

[plugins."io.containerd.internal.v1.opt"]
path = "{node.base / "opt"}"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"""

    def _v2(self, node: Node, socket: Path) -> str:
        return (
            self._common(node, socket, 2)
            + f"""
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
disable_tcp_service = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter(node)}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{node.cni_bin}"
conf_dir = "{node.cni_conf("subnet")}"
"""
        )

    def _v3(self, node: Node, socket: Path) -> str:
        # 2.2 calls the directory of plugins bin_dirs; 2.1 warns of neither.
        directories = f'bin_dir = "{node.cni_bin}"'
        if not self.version.startswith(("2.0", "2.1")):
            directories = f'bin_dirs = ["{node.cni_bin}"]'
        plugin = tomllib.loads((CONTRIB / "2.x-sandbox-plugin.toml").read_text())["proxy_plugins"]["unikernel"]
        return (
            self._common(node, socket, 3)
            + tomli_w.dumps(
                {"proxy_plugins": {"unikernel": {**plugin, "address": f"{node.base / 'run' / 'shim.sock'}"}}}
            )
            + f"""
[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter(node)}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{images.PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".cni]
{directories}
conf_dir = "{node.cni_conf("subnet")}"
"""
        )


def registered(line: str) -> dict[str, dict[str, Any]]:
    """The runtime handlers of contrib/containerd's files for a line, with their settings.

    Those of 1.x are called `unikernel`, and get here the name that 2.x has for the same.
    """
    cri = "io.containerd.cri.v1.runtime" if line == "2" else "io.containerd.grpc.v1.cri"
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(CONTRIB.glob(f"{'2.x' if line == '2' else line}-*.toml")):
        found |= tomllib.loads(file.read_text())["plugins"][cri]["containerd"]["runtimes"]
    return found if line == "2" else {f"{name}-podsandbox": settings for name, settings in found.items()}


def snapshotter(node: Node) -> str:
    """`overlayfs` where the node's directory can be below an overlay, else `native`, which copies."""
    directories = [node.base / "probe" / name for name in ("lower", "upper", "work", "merged")]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    lower, upper, work, merged = directories
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        return "native"
    subprocess.run(["umount", str(merged)], check=True)
    return "overlayfs"
