"""The daemon's configuration: one TOML file, every setting with a default, unknown keys refused."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from shim.courier import pod_directory
from shim.errors import InvalidRequest

#: How a tap can be joined to a pod's interface; auto is the first of them that suits the interface.
Dataplane = Literal["auto", "bridge", "mirror", "macvtap"]

#: Where the file is looked for when neither the command line nor UNIKERNEL_SHIM_CONFIG names one.
DEFAULT_PATH = Path("/etc/unikernel-shim/config.toml")
_VARIABLE = "UNIKERNEL_SHIM_CONFIG"
_DAY = 86400  # seconds
_SHORTEST = 1  # seconds between two checks of a guest that does not answer: so long one may take


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every table: immutable, and an unknown key is an error that names it."""


class Log(Section, frozen=True):
    """`level` is debug, info, warning or error; `format` is json, text, or auto (text on a terminal)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Containerd(Section, frozen=True):
    """`address` is containerd's gRPC socket; its ttrpc socket is that with `.ttrpc` behind it."""

    address: str = "/run/containerd/containerd.sock"


class Engine(Section, frozen=True):
    """`path` is the OCI runtime: a path, a name on PATH, or "auto" for crun where it works, else runc. `timeout` is how
    long one run of it may take, in seconds; `parallel` how many may start containers at once, 0 for two a processor."""

    path: str = "auto"
    timeout: float = 30.0
    parallel: int = 0


class Network(Section, frozen=True):
    """`dataplane` says how a tap is joined to the pod's interface, where a pod has no wish of its own."""

    dataplane: Dataplane = "auto"


class Guest(Section, frozen=True):
    """`memory` is what a guest gets, in MiB, when neither an annotation nor a memory limit says."""

    memory: int = 128


class Tender(Section, frozen=True):
    """A Solo5 tender: `path` is a path or a name on PATH."""

    path: str


class Qemu(Section, frozen=True):
    """`path` as for a tender, or "auto" for the qemu-system-… of the node's architecture; `accel` is kvm, tcg, or auto:
    KVM where a guest was seen to run under it; `vhost` is on, off, or auto: the kernel moves the NICs' packets
    (vhost-net) where KVM is used and the node has that.

    `powerdown` is how many seconds a guest that is to stop is given to power down, where its pod does not say; 0 asks
    no guest."""

    path: str = "auto"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    vhost: Literal["auto", "off", "on"] = "auto"
    powerdown: float = 20.0


class Firecracker(Section, frozen=True):
    """`path` as for a tender."""

    path: str = "firecracker"


class CloudHypervisor(Section, frozen=True):
    """`path` as for a tender, `powerdown` as for QEMU."""

    path: str = "cloud-hypervisor"
    powerdown: float = 20.0


class Monitors(Section, frozen=True):
    """One table a monitor."""

    spt: Tender = Tender(path="solo5-spt")
    hvt: Tender = Tender(path="solo5-hvt")
    qemu: Qemu = Qemu()
    firecracker: Firecracker = Firecracker()
    cloud_hypervisor: CloudHypervisor = msgspec.field(default=CloudHypervisor(), name="cloud-hypervisor")


class Storage(Section, frozen=True):
    """`directory` is on a disk: it holds images of file systems, which outlive their pods, and the pods' own disks. At
    most `limit` MiB of images are kept that nobody uses; a root that a guest can write to has `room` MiB beside what is
    in it."""

    directory: Path = Path("/var/lib/unikernel-shim")
    limit: int = 10240
    room: int = 1024


class Metrics(Section, frozen=True):
    """`listen` is where Prometheus fetches metrics: HOST:PORT, `unix:` and a path, or "" for nowhere."""

    listen: str = ""


class Check(Section, frozen=True):
    """`every` is how many seconds are between two checks of a guest; 0: it is checked when somebody asks."""

    every: float = 0.0


class Tracing(Section, frozen=True):
    """`endpoint` is the collector that traces are sent to, by OTLP over gRPC: http://HOST:PORT, https:// for one with
    TLS, "" for nowhere. `sample` is the share of traces to keep, 0 to 1, of those that begin here: of the others,
    containerd has decided."""

    endpoint: str = ""
    sample: float = 1.0


class Config(Section, frozen=True):
    """The whole file. `run_dir` holds the sockets, the lock and the journal, mode 0700. `grouping` says whom couriers
    ask: the node's daemon, or one of the pod's own."""

    run_dir: Path = Path("/run/unikernel-shim")
    grouping: Literal["node", "pod"] = "node"
    stop_grace: float = 5.0
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


def load(path: Path | None = None) -> Config:
    """Read `path`, else the file UNIKERNEL_SHIM_CONFIG names, else DEFAULT_PATH (which may be missing).

    Raises InvalidRequest naming the file and the key or line.
    """
    named = path or (Path(os.environ[_VARIABLE]) if os.environ.get(_VARIABLE) else None)
    try:
        text = (named or DEFAULT_PATH).read_text()
    except FileNotFoundError:
        if named is None:
            return Config()
        raise InvalidRequest("there is no such configuration file", subject=os.fspath(named)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"the configuration cannot be read: {error}", subject=os.fspath(named or DEFAULT_PATH)
        ) from error
    return parse(text, os.fspath(named or DEFAULT_PATH))


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
