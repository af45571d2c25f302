"""The daemon's configuration: one TOML file, every setting with a default, unknown keys refused."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from shim.courier import pod_directory
from shim.errors import InvalidRequest

#: How a tap can be joined to a pod's interface; auto is the first of them that suits the interface.
Dataplane = Literal["auto", "bridge", "mirror", "macvtap"]

#: Where the file is looked for when neither the command line nor UNIKERNEL_SHIM_CONFIG names one.
DEFAULT_PATH = Path("/etc/unikernel-shim/config.toml")
#: The environment variable that names it; a courier inherits containerd's.
VARIABLE = "UNIKERNEL_SHIM_CONFIG"
_DAY = 86400  # seconds
_SHORTEST = 1  # seconds between two checks of a guest that does not answer: so long one may take
_PATH = "a path, or a name on PATH"
_POWERDOWN = "seconds for a guest to power down, where its pod does not say; 0: none is asked"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every table: immutable, and an unknown key is an error that names it."""


class Log(Section, frozen=True):
    """What the daemon says on stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="the least that is said")] = "info"
    format: Annotated[
        Literal["auto", "json", "text"], Meta(description="one JSON object a line, or text; auto: text on a terminal")
    ] = "auto"


class Containerd(Section, frozen=True):
    """Whom the daemon tells what happened."""

    address: Annotated[
        str, Meta(description="containerd's gRPC socket; its ttrpc socket is that with .ttrpc behind it")
    ] = "/run/containerd/containerd.sock"


class Engine(Section, frozen=True):
    """The OCI runtime that makes containers."""

    path: Annotated[str, Meta(description="a path, a name on PATH, or auto: crun where it works, else runc")] = "auto"
    timeout: Annotated[float, Meta(description="seconds that one run of it may take")] = 30.0
    parallel: Annotated[int, Meta(description="how many may start containers at once; 0: two a processor")] = 0


class Network(Section, frozen=True):
    """What a pod's network becomes where the pod has no wish of its own."""

    dataplane: Annotated[
        Dataplane, Meta(description="how a tap is joined to the pod's interface; auto: the first that suits it")
    ] = "auto"


class Guest(Section, frozen=True):
    """What guests get."""

    memory: Annotated[int, Meta(description="MiB, where neither an annotation nor a memory limit says")] = 128


class Spt(Section, frozen=True):
    """Solo5's tender that confines its guest by a seccomp filter."""

    path: Annotated[str, Meta(description=_PATH)] = "solo5-spt"


class Hvt(Section, frozen=True):
    """Solo5's tender that runs its guest under KVM."""

    path: Annotated[str, Meta(description=_PATH)] = "solo5-hvt"


class Qemu(Section, frozen=True):
    """QEMU."""

    path: Annotated[
        str, Meta(description="a path, a name on PATH, or auto: the qemu-system-… of the node's architecture")
    ] = "auto"
    accel: Annotated[
        Literal["auto", "kvm", "tcg"], Meta(description="auto: KVM where a guest was seen to run under it, else TCG")
    ] = "auto"
    vhost: Annotated[
        Literal["auto", "off", "on"],
        Meta(description="whether the kernel moves the NICs' packets; auto: with KVM, where the node has vhost-net"),
    ] = "auto"
    powerdown: Annotated[float, Meta(description=_POWERDOWN)] = 20.0


class Firecracker(Section, frozen=True):
    """Firecracker."""

    path: Annotated[str, Meta(description=_PATH)] = "firecracker"


class CloudHypervisor(Section, frozen=True):
    """Cloud Hypervisor."""

    path: Annotated[str, Meta(description=_PATH)] = "cloud-hypervisor"
    powerdown: Annotated[float, Meta(description=_POWERDOWN)] = 20.0


class Monitors(Section, frozen=True):
    """One table a monitor."""

    spt: Spt = Spt()
    hvt: Hvt = Hvt()
    qemu: Qemu = Qemu()
    firecracker: Firecracker = Firecracker()
    cloud_hypervisor: CloudHypervisor = msgspec.field(default=CloudHypervisor(), name="cloud-hypervisor")


class Storage(Section, frozen=True):
    """Images of file systems, kept for further pods, and the pods' own disks."""

    directory: Annotated[Path, Meta(description="where they are: on a disk, an absolute path")] = Path(
        "/var/lib/unikernel-shim"
    )
    limit: Annotated[int, Meta(description="MiB of images that are kept while nobody uses them")] = 10240
    room: Annotated[int, Meta(description="MiB that a root which a guest can write to has beside what is in it")] = 1024


class Metrics(Section, frozen=True):
    """What Prometheus is told."""

    listen: Annotated[
        str, Meta(description="where it fetches them: 127.0.0.1:9477 or the like, unix:/path, or nothing: nowhere")
    ] = ""


class Check(Section, frozen=True):
    """Whether guests are checked without being asked for."""

    every: Annotated[
        float, Meta(description="seconds between two checks of a guest; 0: it is checked when somebody asks")
    ] = 0.0


class Tracing(Section, frozen=True):
    """Where traces are sent."""

    endpoint: Annotated[
        str,
        Meta(description="a collector, OTLP over gRPC: http://127.0.0.1:4317, https:// for TLS; nothing: nowhere"),
    ] = ""
    sample: Annotated[
        float, Meta(description="the share of traces to keep, 0 to 1, of those that begin here and not in containerd")
    ] = 1.0


class Config(Section, frozen=True):
    """The whole file. Each setting's description is its text in docs/configuration.md and contrib/config.toml."""

    run_dir: Annotated[Path, Meta(description="sockets, lock and journal; root's, mode 0700; an absolute path")] = Path(
        "/run/unikernel-shim"
    )
    grouping: Annotated[
        Literal["node", "pod"],
        Meta(description="whom couriers ask: the node's daemon, or with pod one of the pod's own"),
    ] = "node"
    stop_grace: Annotated[
        float, Meta(description="seconds that a stopping daemon gives to calls under way and to untold events")
    ] = 5.0
    log: Log = Log()
    containerd: Containerd = Containerd()
    engine: Engine = Engine()
    network: Network = Network()
    guest: Guest = Guest()
    monitors: Monitors = Monitors()
    storage: Storage = Storage()
    check: Check = Check()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()

    @property
    def grpc_socket(self) -> Path:
        """The door for the Sandbox Controller plugin, grpcurl and the command line."""
        return self.run_dir / "shim.sock"

    @property
    def ttrpc_socket(self) -> Path:
        """The door for containerd's `start` path and the courier."""
        return self.run_dir / "shim.ttrpc"

    def within(self, pod: str) -> Config:
        """The settings of the daemon of one pod, NAMESPACE/ID: the node's, with a run directory in the node's.

        Metrics are the node's daemon's alone: there is one address for them.
        """
        directory = Path(pod_directory(os.fspath(self.run_dir), pod))
        return msgspec.structs.replace(self, run_dir=directory, metrics=Metrics())


def named(path: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The file that is meant by `path`, else by UNIKERNEL_SHIM_CONFIG in the environment, else DEFAULT_PATH."""
    return path or Path(environment.get(VARIABLE) or DEFAULT_PATH)


def load(path: Path | None = None) -> Config:
    """Read `path`, else the file UNIKERNEL_SHIM_CONFIG names, else DEFAULT_PATH (which may be missing).

    Raises InvalidRequest naming the file and the key or line.
    """
    file = named(path)
    try:
        text = file.read_text()
    except FileNotFoundError:
        if path is None and not os.environ.get(VARIABLE):
            return Config()
        raise InvalidRequest("there is no such configuration file", subject=os.fspath(file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the configuration cannot be read: {error}", subject=os.fspath(file)) from error
    return parse(text, os.fspath(file))


def parse(text: str, name: str) -> Config:
    """Turn TOML text into a Config; `name` is what errors call it."""
    try:
        config = msgspec.convert(tomllib.loads(text), Config, dec_hook=lambda kind, value: kind(value))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"the configuration is wrong: {error}", subject=name) from error
    if not config.run_dir.is_absolute():
        raise InvalidRequest("run_dir must be an absolute path", subject=name)
    if config.engine.timeout <= 0 or config.engine.parallel < 0:
        raise InvalidRequest("engine.timeout must be above 0, engine.parallel 0 or more", subject=name)
    if not config.storage.directory.is_absolute():
        raise InvalidRequest("storage.directory must be an absolute path", subject=name)
    if config.storage.limit < 0 or config.storage.room < 0:
        raise InvalidRequest("storage.limit and storage.room must be 0 or more", subject=name)
    if config.guest.memory < 1:
        raise InvalidRequest("guest.memory must be at least 1 MiB", subject=name)
    if config.tracing.endpoint and not _is_collector(config.tracing.endpoint):
        raise InvalidRequest("tracing.endpoint must be http://HOST:PORT or https://HOST:PORT", subject=name)
    # Also what is no number: nan compares with nothing.
    if config.check.every and not _SHORTEST <= config.check.every <= _DAY:
        raise InvalidRequest(f"check.every must be 0, or {_SHORTEST} to {_DAY} seconds", subject=name)
    if not 0 <= config.tracing.sample <= 1:
        raise InvalidRequest("tracing.sample must be 0 to 1", subject=name)
    monitors = config.monitors
    asking = {"qemu": monitors.qemu.powerdown, "cloud-hypervisor": monitors.cloud_hypervisor.powerdown}
    for monitor, powerdown in asking.items():
        if not 0 <= powerdown <= _DAY:
            raise InvalidRequest(f"monitors.{monitor}.powerdown must be 0 to {_DAY} seconds", subject=name)
    return config


def _is_collector(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        named = bool(parts.hostname and parts.port)
    except ValueError:
        return False
    return named and parts.scheme in ("http", "https") and endpoint == f"{parts.scheme}://{parts.netloc}"
