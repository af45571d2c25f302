"""Making what `volumes` decided on: looking at the node before, images, copies and devices after, and their removal.

What is a container's own is in two places, and both are in its record before anything is in them: its directory in the
run directory, which is memory, and one on the disk, `Node.disks_dir`.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from shim import log, telemetry
from shim.errors import InvalidRequest, NodeFault
from shim.guests.base import Dns, Guest, Volume
from shim.monitors.base import Disk, SharedDirectory
from shim.oci import bundle, packed, rewrite, urunc
from shim.oci.image import Unikernel
from shim.oci.rootfs import Mount, block_device, unchanged_layers, unmount_all
from shim.oci.volumes import Bind, Role, binds, block_devices
from shim.process.boot import boot_id
from shim.sandbox.files import parse_resolv_conf
from shim.sandbox.node import Node
from shim.sandbox.record import ContainerRecord
from shim.sandbox.volumes import (
    CPIO,
    Content,
    Initrd,
    Part,
    RootFileSystem,
    Share,
    Storage,
    abilities,
    decide,
    tag,
    told,
)
from shim.storage import formats
from shim.storage.images import Image, Images
from shim.storage.source import Source
from shim.telemetry import Leftover, Tally
from shim.threads import in_thread, to_its_end

_log = log.get(__name__)

# Where the monitor has them; what is not below its /dev could not be a device.
_IMAGES = Path("/unikernel")
_DEVICES = Path("/dev")
_IN_MEMORY = ("tmpfs", "ramfs")
_SMALL = 1 << 16  # bytes of a resolv.conf
_ALIGNED = 4  # of the archives in an initrd (Documentation/driver-api/early-userspace/buffer-format.rst)


class Provided(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's storage, made: what its monitor is shown, what its machine has, and what it is told."""

    files: rewrite.Files
    devices: tuple[rewrite.Device, ...] = ()
    disks: tuple[Disk, ...] = ()
    directories: tuple[SharedDirectory, ...] = ()
    volumes: tuple[Volume, ...] = ()
    dns: Dns = Dns()


def of_boot(directory: Path) -> Path:
    """The directory in `directory` for disks that are containers' own: none outlives the machine's uptime."""
    return directory / "disks" / boot_id()


def sweep(directory: Path) -> None:
    """Remove the disks of containers that the machine's last restart ended; blocks."""
    now = of_boot(directory)
    for former in now.parent.glob("*"):
        if former != now:
            _log.info("removing disks from before the machine's restart", path=os.fspath(former))
            shutil.rmtree(former, ignore_errors=True)
            telemetry.count(Tally.LEFTOVER, Leftover.DISK)


def remove(directory: Path) -> None:
    """Remove a container's own disks; harmless when they are gone; blocks. Raises OSError."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return


def root_of(directory: Path, spec: rewrite.Spec, mounts: tuple[Mount, ...]) -> RootFileSystem:
    """The root file system that is mounted from `mounts` for the bundle in `directory`; blocks."""
    device = block_device(mounts)
    return RootFileSystem(
        directory=bundle.root_of(directory, spec).resolve(),
        layers=unchanged_layers(mounts),
        read_only=rewrite.is_root_read_only(spec),
        device=device,
        format=mounts[0].type if device else "",
    )


def takes_root(image: Unikernel, guest: Guest) -> bool:
    """Whether the container's root file system may become the guest's without anybody asking: else it need not be
    looked through, however large it is."""
    return bool(guest.roots) and image.initrd is None


def is_bare(directory: Path, image: Unikernel) -> bool:
    """Whether there is no file in the image but the kernel and what goes with it; blocks, for as long as it takes to
    find another."""
    directory = directory.resolve()
    own = {image.path, image.initrd, *(block.path for block in image.blocks)}
    own |= {directory / name.lstrip("/") for name in (packed.PATH, urunc.FILE)}
    return all(Path(top, name) in own for top, _, names in os.walk(directory) for name in names)


async def provide(
    node: Node, record: ContainerRecord, spec: rewrite.Spec, image: Unikernel, root: RootFileSystem
) -> Provided:
    """Decide, and make it all. `spec` is the container's configuration, `root` its root file system.

    Leaves only what the record speaks of. Raises the errors of `volumes.decide` and of `Images`, InvalidRequest for a
    volume whose source is missing.
    """
    guest, monitor = node.guests[image.guest], node.monitors[image.monitor]
    mounted = binds(spec)
    contents = await in_thread(_look_at, mounted)
    if takes_root(image, guest):
        root = msgspec.structs.replace(root, is_bare=await in_thread(is_bare, root.directory, image))
    storage = decide(image, root, contents, block_devices(spec), abilities(guest, monitor))
    for note in storage.notes:
        _log.info("not all of the container's storage is its guest's", container=record.container, note=note)
    return await _Making(node, record, image, root, monitor.writes_disks).of(storage, await in_thread(_dns, contents))


def _look_at(mounted: Sequence[Bind]) -> tuple[Content, ...]:
    """Each mount with what its source is. Raises InvalidRequest where it is missing."""
    memory = _memory_file_systems(Path("/proc/self/mountinfo").read_text()) if mounted else frozenset()
    return tuple(_content(bind, memory) for bind in mounted)


def _content(bind: Bind, memory: frozenset[int]) -> Content:
    try:
        found = bind.source.stat()
    except OSError as error:
        raise InvalidRequest(
            f"the volume's source cannot be used: {os.strerror(error.errno or 0)} ({bind.source})", subject=bind.target
        ) from error
    natures = ((stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"), (stat.S_ISBLK, "block"))
    return msgspec.convert(
        {
            **msgspec.structs.asdict(bind),
            "nature": next((name for is_it, name in natures if is_it(found.st_mode)), "other"),
            "in_memory": found.st_dev in memory,
        },
        Content,
    )


def _memory_file_systems(mountinfo: str) -> frozenset[int]:
    """The device numbers (stat(2), st_dev) of file systems in memory, out of the text of mountinfo (proc(5))."""
    found = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in _IN_MEMORY:
            major, _, minor = before.split(" ")[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)


def _dns(contents: Sequence[Content]) -> Dns:
    for content in contents:
        if content.role is Role.NAMES and content.nature == "file":
            return parse_resolv_conf(_small_text(content))
    return Dns()


def _small_text(content: Content) -> str:
    """A file that a container of the pod may have written. Raises InvalidRequest for one that cannot be what it is said
    to be."""
    try:
        descriptor = os.open(content.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                text = os.pread(descriptor, _SMALL + 1, 0)
                if len(text) <= _SMALL:
                    return text.decode(errors="replace")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidRequest(f"cannot be read: {os.strerror(error.errno or 0)}", subject=content.target) from error
    raise InvalidRequest(f"is no file of at most {_SMALL} bytes", subject=content.target, remedy="mount another there")


class _Making:
    """One container's storage under way."""

    def __init__(
        self, node: Node, record: ContainerRecord, image: Unikernel, root: RootFileSystem, writes_disks: bool
    ) -> None:
        self._node, self._record, self._image, self._root = node, record, image, root
        self._writes_disks = writes_disks
        self._own = node.container_dir(record.namespace, record.container)
        self._private = node.images_in(self._own / "images")
        self._disks = node.disks_dir(record.namespace, record.container)
        self._shown: list[rewrite.Shown] = []
        self._devices: list[rewrite.Device] = []
        self._made: list[Disk] = []
        self._formats: list[str] = []

    async def of(self, storage: Storage, dns: Dns) -> Provided:
        """Make it, one after another: a node has other pods to serve."""
        await in_thread(_make_directory, self._own)
        gives_root = any(part.origin == "device" and part.numbers is None for part in storage.parts)
        copied = [part for part in storage.parts if self._is_copied(part, gives_root)]
        if copied:
            self._record.disks = self._disks
            self._node.journal.write(self._record.key, self._record)
            await in_thread(_make_directory, self._disks)
        for number, part in enumerate(storage.parts):
            if part.origin == "device":
                await self._add_device(number, part)
            else:
                await self._add_image(number, part, is_copied=part in copied)
        directories = tuple(self._add_share(number, share) for number, share in enumerate(storage.shares))
        kernel, initrd = self._image.path, self._image.initrd
        if storage.initrd is not None:
            initrd = await self._make_initrd(storage.initrd)
        if gives_root:
            kernel, initrd = await in_thread(_give_root, self._root, self._own, kernel, initrd)
        return Provided(
            files=rewrite.Files(kernel=kernel, initrd=initrd, more=tuple(self._shown)),
            devices=tuple(self._devices),
            disks=tuple(self._made),
            directories=directories,
            volumes=told(storage, self._image.root_target, self._formats),
            dns=dns,
        )

    @staticmethod
    async def _build(
        images: Images, source: Source, format: str, extra: Mapping[str, Path] = {}, room: int = 0
    ) -> Image:
        """An image. Whoever is cancelled waits for its end: the build goes on for others, and must not meet a root file
        system that is being unmounted."""
        return await to_its_end(images.build(source, format, extra=extra, writable=room))

    def _is_copied(self, part: Part, gives_root: bool) -> bool:
        """Whether the pod is to have a copy of its own. An image with something from memory in it is one, and a file of
        a root file system that is given away would go with it."""
        if part.origin == "device" or part.in_memory:
            return False
        return self._is_written(part) or (part.origin == "file" and gives_root)

    def _is_written(self, part: Part) -> bool:
        return not part.read_only or self._writes_disks

    async def _add_image(self, number: int, part: Part, *, is_copied: bool) -> None:
        format = part.format
        if part.origin == "file":
            source = part.source
            found = await in_thread(formats.read, source)
            format = format or found or ""
        else:
            layers = self._root.layers if part.source == self._root.directory else ()
            images = self._private if part.in_memory else self._node.images
            room = 0 if part.read_only else self._node.config.storage.room
            source = (await self._build(images, Source(part.source, layers), format, part.extra, room)).path
        if is_copied:
            copy = self._disks / str(number)
            await self._node.images.copy(source, copy)
            source = copy
        if is_copied or part.in_memory:
            await in_thread(_give, source, self._record.user)
        path = _IMAGES / f"disk{number}"
        self._shown.append(rewrite.Shown(source=source, target=path, writable=self._is_written(part)))
        self._add_disk(part, path, format)

    async def _add_device(self, number: int, part: Part) -> None:
        if part.read_only and self._writes_disks:
            raise InvalidRequest(
                f"{self._image.monitor} opens its disks for writing, and this one is read-only",
                subject=os.fspath(part.source),
                remedy="give the pod one that can be written to",
            )
        path = _DEVICES / f"disk{number}"
        numbers = part.numbers
        if numbers is None:
            numbers = await in_thread(_numbers, part.source)
        access: Literal["r", "rw"] = "r" if part.read_only else "rw"
        self._devices.append(rewrite.Device(path, *numbers, "b", access, self._record.user))
        self._add_disk(part, path, part.format)

    def _add_disk(self, part: Part, path: Path, format: str) -> None:
        self._made.append(Disk(path=path, read_only=part.read_only, device=part.device))
        self._formats.append(format)

    def _add_share(self, number: int, share: Share) -> SharedDirectory:
        path = _IMAGES / tag(number)
        self._shown.append(rewrite.Shown(source=share.source, target=path, writable=not share.read_only))
        return SharedDirectory(path=path, tag=tag(number), read_only=share.read_only)

    async def _make_initrd(self, wanted: Initrd) -> Path:
        """The initrd as the guest is to have it, as a file of the node."""
        images = self._private if wanted.in_memory else self._node.images
        if wanted.tree is not None:
            return (await self._build(images, Source(wanted.tree, self._root.layers), CPIO, wanted.extra)).path
        first = self._image.initrd
        assert first is not None
        nothing = self._own / "nothing"
        await in_thread(_make_directory, nothing)
        behind = await self._build(images, Source(nothing), CPIO, wanted.extra)
        joined = self._own / "initrd"
        await in_thread(_join, (first, behind.path), joined)
        await in_thread(_give, joined, self._record.user)
        return joined


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise NodeFault(
            f"there is no room for the pod's disks: {os.strerror(error.errno or 0)}", subject=os.fspath(directory)
        ) from error


def _give(path: Path, user: int) -> None:
    """Let the monitor's user alone have a file."""
    os.chown(path, user, 0)
    path.chmod(0o600)


def _numbers(device: Path) -> tuple[int, int]:
    found = device.stat().st_rdev
    return os.major(found), os.minor(found)


def _join(archives: Sequence[Path], target: Path) -> None:
    """The archives one behind another, as the kernel unpacks them. Raises NodeFault."""
    try:
        with target.open("wb") as out:
            for archive in archives:
                out.write(b"\0" * (-out.tell() % _ALIGNED))
                with archive.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise NodeFault(f"the initrd cannot be made: {why}", subject=os.fspath(target)) from error


def _give_root(root: RootFileSystem, own: Path, kernel: Path, initrd: Path | None) -> tuple[Path, Path | None]:
    """Let go of a root file system whose device is the guest's from now on, and would be broken by two; returns kernel
    and initrd where they are afterwards. Raises NodeFault where somebody else has it mounted."""
    assert root.device is not None
    found: list[Path | None] = []
    for name, path in (("kernel", kernel), ("initrd", initrd)):
        inside = path is not None and path.is_relative_to(root.directory)
        found.append(Path(shutil.copyfile(path, own / name)) if path is not None and inside else path)
    unmount_all(root.directory)
    try:
        os.close(os.open(root.device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        # O_EXCL on a block device fails while a file system on it is mounted, in whatever namespace (open(2)).
        raise NodeFault(
            f"the root file system's device cannot be given to the guest: {os.strerror(error.errno or 0)}",
            subject=os.fspath(root.device),
            remedy="set io.unikernel.root to another format, of which an image is made",
        ) from error
    assert found[0] is not None
    return found[0], found[1]
