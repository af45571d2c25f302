"""What every sandbox on the node works with, wired once by the daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shim import oom
from shim.config import Config
from shim.guests.base import Guest
from shim.journal import Journal
from shim.monitors.base import Monitor
from shim.oci.engine import Engine
from shim.process.reaper import Reaper
from shim.process.stdio import Opener
from shim.sandbox.occurrences import Occurrence
from shim.sandbox.record import ContainerRecord, SandboxRecord
from shim.storage.images import Images


@dataclass(frozen=True, slots=True)
class Node:
    """The node's parts. `announce` tells the world of an occurrence; it neither blocks nor raises.

    `images` is the cache that all daemons share, `images_in` another one in a directory of the caller's, and `disks`
    the directory for disks that are containers' own.
    """

    config: Config
    reaper: Reaper
    stdio: Opener
    engine: Engine
    journal: Journal[ContainerRecord]
    pods: Journal[SandboxRecord]
    guests: Mapping[str, Guest]
    monitors: Mapping[str, Monitor]
    images: Images
    images_in: Callable[[Path], Images]
    disks: Path
    announce: Callable[[Occurrence], None]
    memory: oom.Watcher = field(default_factory=oom.Watcher)

    def stop(self) -> None:
        """Let go of what the parts hold of the running loop."""
        self.reaper.stop()
        self.memory.close()

    def container_dir(self, namespace: str, container: str) -> Path:
        """Where a container's own bundle, monitor root and stderr FIFO are."""
        return self.config.run_dir / "containers" / f"{namespace}@{container}"

    def disks_dir(self, namespace: str, container: str) -> Path:
        """Where the disks are that are a container's own."""
        return self.disks / f"{namespace}@{container}"

    def sandbox_dir(self, namespace: str, sandbox: str) -> Path:
        """Where a sandbox's pinned namespaces are."""
        return self.config.run_dir / "sandboxes" / f"{namespace}@{sandbox}"
