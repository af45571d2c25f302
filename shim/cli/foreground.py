"""What `unikernel-shim run` does: the daemon's machinery in the foreground, with no containerd and no daemon."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import uvloop

from shim import log
from shim.config import Config
from shim.daemon import make_node
from shim.errors import InvalidRequest, NetworkFault, NotFound, ShimError
from shim.network.kernel.namespace import namespace_path
from shim.network.pod import PodNetwork
from shim.oci.bundle import write_spec
from shim.oci.rewrite import Spec
from shim.oci.rootfs import Mount
from shim.process.stdio import Streams
from shim.rundir import refused
from shim.sandbox.container import Container
from shim.sandbox.creation import Order
from shim.sandbox.sandboxes import Sandboxes
from shim.sandbox.teardown import dismantle

_log = log.get(__name__)

_NAMESPACE = "foreground"
_NAMESPACES = ("mount", "pid", "ipc", "uts")


def spec_for(
    name: str, arguments: tuple[str, ...], netns: Path | None, wishes: Mapping[str, str], initrd: bool
) -> Spec:
    """An OCI configuration for a kernel at /kernel (and an initrd at /initrd) of an otherwise empty image."""
    annotations = {f"io.unikernel.{key}": value for key, value in wishes.items()}
    annotations["io.unikernel.kernel"] = "/kernel"
    if initrd:
        annotations["io.unikernel.initrd"] = "/initrd"
    # There is nothing in it that a guest could have as its root.
    annotations["io.unikernel.root"] = "none"
    annotations["io.unikernel.network"] = "required" if netns else "none"
    network = {"type": "network", **({"path": os.fspath(netns)} if netns else {})}
    return {
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/kernel", *arguments], "env": []},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "unikernel",
        "annotations": annotations,
        "linux": {
            "namespaces": [*({"type": kind} for kind in _NAMESPACES), network],
            "cgroupsPath": f"/unikernel-shim/{name}",
        },
    }


def foreground(
    config: Config,
    kernel: Path,
    arguments: tuple[str, ...],
    *,
    netns: str | None,
    initrd: Path | None,
    wishes: Mapping[str, str],
) -> int:
    """Run `kernel` until it ends or a signal comes; returns the monitor's exit code.

    Raises the errors of the parts it uses, and leaves nothing behind.
    """
    for file in (kernel, initrd):
        if file is not None and not _is_file(file):
            raise InvalidRequest("there is no such file", subject=os.fspath(file))
    path = namespace_path(netns) if netns is not None else None
    # A directory of its own: neither the daemon nor another foreground run is to be met there.
    runs = config.run_dir / "foreground"
    own = runs / str(os.getpid())
    with refused(config.run_dir):
        config.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.configure("warning" if config.log.level == "info" else config.log.level)
    with _lock(own):
        uvloop.run(_clear_dead(config, sorted(runs.iterdir())))
        config = msgspec.structs.replace(config, run_dir=own)
        try:
            status: int = uvloop.run(_run(config, kernel, arguments, path, initrd, wishes))
            return status
        finally:
            shutil.rmtree(own, ignore_errors=True)
            with contextlib.suppress(OSError):
                runs.rmdir()  # unless another run is in it


def _is_file(path: Path) -> bool:
    """Raises InvalidRequest where this user may not look."""
    try:
        return path.is_file()
    except OSError as error:
        raise InvalidRequest(f"it cannot be read: {error.strerror}", subject=os.fspath(path)) from error


@contextlib.contextmanager
def _lock(run: Path) -> Iterator[None]:
    """Hold a run's directory: one that nobody holds is a dead run's. Raises BlockingIOError where somebody does."""
    with (run / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


async def _clear_dead(config: Config, runs: Iterable[Path]) -> None:
    """Undo what runs that were killed left: a guest, its root, its plumbing in a namespace that somebody will ask
    for again."""
    for run in runs:
        try:
            with _lock(run):
                await _clear(msgspec.structs.replace(config, run_dir=run))
                await asyncio.to_thread(shutil.rmtree, run, ignore_errors=True)
        except BlockingIOError:
            continue
        except (ShimError, OSError) as error:
            _log.error("a dead run's leftovers stay", directory=os.fspath(run), error=str(error))


async def _clear(config: Config) -> None:
    node = await make_node(config, lambda occurrence: None)
    try:
        for record in (await asyncio.to_thread(node.journal.records)).values():
            _log.warning("removing what a dead run left", container=record.container)
            netns = record.plumbing.netns if record.plumbing else ""
            await dismantle(node, record)
            if netns:
                await _settled(Path(netns))
    finally:
        node.stop()


async def _run(
    config: Config,
    kernel: Path,
    arguments: tuple[str, ...],
    netns: Path | None,
    initrd: Path | None,
    wishes: Mapping[str, str],
) -> int:
    name = f"run-{os.getpid()}"
    node = await make_node(config, lambda occurrence: None)
    sandboxes = Sandboxes(node)
    bundle = config.run_dir / "bundle"
    files = {"kernel": kernel, **({"initrd": initrd} if initrd else {})}
    write_spec(bundle, spec_for(name, arguments, netns, wishes, initrd is not None))
    (bundle / "rootfs").mkdir()
    for target in files:
        (bundle / "rootfs" / target).touch()
    order = Order(
        id=name,
        bundle=bundle,
        rootfs=tuple(
            Mount(type="bind", source=os.fspath(source.resolve()), target=f"/{target}", options=("bind", "ro"))
            for target, source in files.items()
        ),
        streams=Streams(stdin="fd://0", stdout="fd://1", stderr="fd://2"),
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before the first step that leaves anything: Ctrl-C at any moment must end in a restored namespace.
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopping.set)
    try:
        container = await sandboxes.create(_NAMESPACE, order)
        try:
            if not stopping.is_set():
                await container.start("")
                await _until_end(container, stopping)
        finally:
            await sandboxes.destroy(_NAMESPACE, name)
    finally:
        if netns is not None:
            await _settled(netns)
        node.stop()
    return container.init.exit.status


async def _settled(netns: Path) -> None:
    """Wait for what goes on in the background: it would end with this process."""
    # Where it cannot be entered, nothing goes on in it, and whoever tried has said so.
    with contextlib.suppress(NetworkFault):
        async with await PodNetwork.open(netns) as network:
            await network.settled()


async def _until_end(container: Container, stopping: asyncio.Event) -> None:
    """Wait for the guest; the first signal asks it to stop, a second kills it."""
    ended = asyncio.ensure_future(container.init.wait())
    for signum in (signal.SIGTERM, signal.SIGKILL):
        asked = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ended.done():
            return
        stopping.clear()
        print("", file=sys.stderr)
        try:
            await container.kill("", signum, everyone=False)
        except NotFound:
            break
    await ended
