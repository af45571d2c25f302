"""A pod with a sidecar and a unikernel, without containerd: its bundles, and the calls that containerd would make."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import grpc

from shim.wire import types_task_pb2
from tests.integration import layouts, paths, tender_double
from tests.integration.doors import Door
from tests.integration.layouts import Site
from tests.integration.node import Node

NAMESPACE = "life"
SANDBOX, ORDINARY, GUEST = "pod", "sidecar", "guest"
MOUNTS = (("proc", "proc"), ("dev", "tmpfs"))


def _tenders() -> dict[str, bytes]:
    files = tender_double.image(blocks={"data": bytes(512)}).files
    found = {}
    for path, name in ((tender_double.KERNEL_PATH, "kernel"), ("/data", "data")):
        content = files[path]
        assert isinstance(content, bytes)
        found[name] = content
    return found


class Life:
    """A pod with a sidecar and a unikernel with a disk, from Create to Shutdown, over the daemon's gRPC door."""

    def __init__(
        self,
        node: Node,
        site: Site,
        *,
        guest: Mapping[str, bytes] | None = None,
        words: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """`guest` are the files of the unikernel's image by name, /kernel among them, `words` its arguments; without
        them it is the tender's double, with a disk."""
        self.node, self.site = node, site
        self.base = node.base / "life"
        #: What a unikernel of the test's own says.
        self.console = self.base / "console"
        self._heard = guest is not None
        for name in (ORDINARY, GUEST):
            (self.base / name / "image").mkdir(parents=True)
            (self.base / name / "rootfs").mkdir()
        for name in ("proc", "dev", "bin", "etc"):
            (self.base / ORDINARY / "image" / name).mkdir()
        for name in ("hostname", "hosts", "resolv.conf"):  # the pod's are mounted there
            (self.base / ORDINARY / "image" / "etc" / name).touch()
        busybox = self.base / ORDINARY / "image" / "bin" / "busybox"
        busybox.write_bytes(Path(paths.program("busybox")).read_bytes())
        busybox.chmod(0o755)
        if guest is None:
            guest, annotations = _tenders(), {"io.unikernel.block": "data=/data"}
            words = (f"address={site.address}", "term=0")
        for name, content in guest.items():
            (self.base / GUEST / "image" / name).write_bytes(content)
        self._configure(ORDINARY, {}, "/bin/busybox", "sleep", "3600")
        self._configure(GUEST, annotations or {}, "/kernel", *words)

    def _configure(self, name: str, annotations: Mapping[str, str], *argv: str) -> None:
        spec = {
            "ociVersion": "1.0.2",
            "process": {"args": argv, "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": f"/{each[0]}", "type": each[1], "source": each[1]} for each in MOUNTS],
            "annotations": {
                "io.kubernetes.cri.sandbox-id": SANDBOX,
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": name,
                **annotations,
            },
            "linux": {
                # As containerd writes them for a pod without a pause container.
                "namespaces": [
                    {"type": "mount"},
                    {"type": "pid"},
                    *({"type": kind, "path": f"/proc/0/ns/{kind}"} for kind in ("network", "ipc", "uts")),
                ],
                "cgroupsPath": f"{self.node.cgroup_parent}/{name}",
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        (self.base / name / "config.json").write_text(json.dumps(spec))

    def told(self, *words: str) -> None:
        """Give the unikernel that is created next other arguments."""
        path = self.base / GUEST / "config.json"
        spec = json.loads(path.read_text())
        spec["process"]["args"] = ["/kernel", *words]
        path.write_text(json.dumps(spec))

    def begin(self, door: Door) -> None:
        """The sandbox, ready."""
        door.controller("Create", sandbox_id=SANDBOX, netns_path=str(self.site.path))
        door.controller("Start", sandbox_id=SANDBOX)

    def create(self, door: Door, name: str) -> int:
        """Create one of the containers; its pid."""
        rootfs = [{"type": "bind", "source": str(self.base / name / "image"), "options": ["rbind", "ro"]}]
        console = f"file://{self.console}" if name == GUEST and self._heard else ""
        return int(door.task("Create", id=name, bundle=str(self.base / name), rootfs=rootfs, stdout=console).pid)

    def live(self, door: Door) -> None:
        """All of it. Raises grpc.RpcError where the daemon dies or refuses."""
        self.begin(door)
        for name in (ORDINARY, GUEST):
            self.create(door, name)
            door.task("Start", id=name)
        assert self.answers()
        door.task("Kill", id=GUEST, signal=int(signal.SIGTERM))
        door.task("Wait", id=GUEST)
        door.task("Delete", id=GUEST)
        self.end(door)

    def end(self, door: Door) -> None:
        """What containerd does to be rid of the pod, whatever there is of it."""
        for method in ("Stop", "Shutdown"):
            try:
                door.controller(method, sandbox_id=SANDBOX)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

    def answers(self) -> bool:
        """Whether the unikernel is there for the pod's router."""
        return layouts.pings(self.site.node, self.site.address, count=1)

    def whole(self, door: Door) -> None:
        """What the daemon knows is true: each container that it calls alive lives, and the network has one owner."""
        status = {}
        for name in (ORDINARY, GUEST):
            with suppress(grpc.RpcError):
                state = door.task("State", id=name)
                status[name] = state.status
                lives = state.status in (types_task_pb2.CREATED, types_task_pb2.RUNNING)
                assert Path(f"/proc/{state.pid}").exists() is lives, state
        assert self.has_address() is (status.get(GUEST) not in (types_task_pb2.CREATED, types_task_pb2.RUNNING))
        if status.get(GUEST) == types_task_pb2.RUNNING:
            assert self.answers()

    def has_address(self) -> bool:
        """Whether the pod's eth0 has its address."""
        shown = layouts.ip("-o", "address", "show", "eth0", namespace=self.site.pod)
        return f"inet {self.site.address}/" in shown
