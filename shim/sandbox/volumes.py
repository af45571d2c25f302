"""What of a container's storage reaches its guest, and as what. Pure: `disks` looks at the node before, and acts after.

The guest's root:

    io.unikernel.root | and                                                   | is
    ------------------|-------------------------------------------------------|-----------------------------------------
    auto              | a block of the image is for `/`                       | that block
                      | the image names an initrd, or the guest takes no root | none; one other than Linux that has its
                      |                                                       | initrd as its root is told so
                      | the image holds the kernel, what it loads, no more    | none
                      | the guest is Linux, or its kernel's manifest has one  | the first format that the guest takes of
                      | device more than there are disks                      | those that make a disk, as below
                      | else                                                  | none
    none              |                                                       | none
    cpio              | the guest takes that, and the image names no initrd   | the root file system as the initrd
    9p                | guest and monitor speak it                            | the root file system, shared
    another format    | the root file system is a block device in that format | that device
                      | else, where the guest takes it                        | an image of the root file system

Of images only one in ext2 or ext4 that was asked for by name can be written to, as a copy of the pod's own; a device
and a shared root can. None of them where the container's root is read-only.

Volumes, in the first way that there is:

    a volume that is                  | becomes
    ----------------------------------|---------------------------------------------------------------------------------
    a block device                    | a disk, as it is
    a block device mounted as a file  | refused: it is to be named in volumeDevices
    a directory, read-only            | an image of its own or a shared directory, where the guest can be told to mount
                                      | it; for Linux first as a file, because it is its user space that may be told
    a directory to be written to      | a shared directory, else refused
    a file                            | part of the root's image; part of the initrd (Linux), where that is the root;
                                      | else refused
    a file to be written to, a socket | refused
    an image's VOLUME                 | nothing: the guest's root has there what the image has
    resolv.conf, hosts, hostname,     | as a file where a volume is one; the service account only where that is not on a
    the service account               | disk of the node: every pod has them, each its own, so alone they make no image

An image of the root with a volume in it is one pod's, and is made for it; without one all pods of an image share it.

The disks come in this order: the root, the image's blocks, the pod's block devices, images of volumes. Where a kernel
has a manifest, each disk that names no device of it takes the next one that is left.

What comes from memory, as the kubelet's Secrets do, stays in memory: an image with that in it is the pod's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from shim.errors import ImageFault, InvalidRequest
from shim.guests.base import Guest, Volume
from shim.monitors.base import Monitor
from shim.oci.annotations import PREFIX
from shim.oci.image import Unikernel
from shim.oci.volumes import BlockDevice, Role
from shim.storage.filesystems.registry import FORMATS, file_system

#: A root that the guest's kernel unpacks, and directories that the monitor shares: they make no disk.
CPIO, SHARED = "cpio", "9p"
#: What images for disks can be made in.
_DISKS = tuple(name for name in FORMATS if name != CPIO)
# A kernel that unpacks archives one behind another (Documentation/driver-api/early-userspace/buffer-format.rst).
_GROWS_INITRD = "linux"
_ROOT = "/"
_EVERY_PODS = (Role.ACCOUNT, Role.NAMES, Role.HOSTS, Role.HOSTNAME)


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A bind mount of the container's, its source looked at."""

    target: str
    source: Path
    read_only: bool
    role: Role
    nature: Literal["directory", "file", "block", "other"]
    in_memory: bool = False


class RootFileSystem(msgspec.Struct, frozen=True, kw_only=True):
    """The container's root file system: where it is mounted, the layers that it is made of where nothing was changed
    (`Source`), and the block device with its format where it is one. `is_bare` says that it holds a kernel, what goes
    with it, and nothing for a guest to mount."""

    directory: Path
    is_bare: bool = False
    layers: tuple[Path, ...] = ()
    read_only: bool = False
    device: Path | None = None
    format: str = ""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What guest and monitor can, by `Guest` and `Monitor`."""

    monitor: str
    roots: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    shares_directories: bool = False
    writes_disks: bool = False


def abilities(guest: Guest, monitor: Monitor) -> Abilities:
    """What the two of them say of themselves."""
    return Abilities(
        monitor=monitor.name,
        roots=guest.roots,
        mounts=guest.mounts,
        shares_directories=monitor.shares_directories,
        writes_disks=monitor.writes_disks,
    )


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of the guest, yet to be made.

    `origin` says what `source` is: "tree" a directory, of which an image in `format` is made with `extra` in it (paths
    of the node by path in the image); "file" an image, "device" a block device of the node, with `format` "" where it
    is not known. `numbers` are a device's, where the pod names it. Of what is not `read_only` the pod has a copy of its
    own, unless it is a device.
    """

    origin: Literal["tree", "file", "device"]
    source: Path
    target: str = ""
    format: str = ""
    device: str = ""
    read_only: bool = True
    extra: Mapping[str, Path] = {}
    in_memory: bool = False
    numbers: tuple[int, int] | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the node that the guest is to reach through its monitor."""

    source: Path
    target: str
    read_only: bool


class Initrd(msgspec.Struct, frozen=True, kw_only=True):
    """An initrd that is not just the image's: `tree` is what it is made of, None for the image's own, and `extra` what
    is in it besides, in an archive behind the image's own."""

    tree: Path | None = None
    extra: Mapping[str, Path] = {}
    in_memory: bool = False


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest gets; `unpacked` says that its root is its initrd, and that it is to be told so; `notes` say what
    it does not get, each a sentence."""

    parts: tuple[Part, ...] = ()
    shares: tuple[Share, ...] = ()
    initrd: Initrd | None = None
    unpacked: bool = False
    notes: tuple[str, ...] = ()


def tag(share: int) -> str:
    """What the guest asks for the shared directory of that number by."""
    return f"share{share}"


def told(storage: Storage, root_target: str, formats: Sequence[str]) -> tuple[Volume, ...]:
    """What the guest is told of its storage, its root, at `root_target`, first; `formats` are those of the parts."""
    disks = (
        Volume(target=part.target, format=format, disk=number, device=part.device, read_only=part.read_only)
        for number, (part, format) in enumerate(zip(storage.parts, formats, strict=True))
    )
    shares = (
        Volume(target=share.target, format=SHARED, device=tag(number), read_only=share.read_only)
        for number, share in enumerate(storage.shares)
    )
    unpacked = [Volume(target=root_target, format=CPIO)] if storage.unpacked else []
    return tuple(sorted((*unpacked, *disks, *shares), key=lambda volume: volume.target != root_target))


def decide(
    image: Unikernel,
    root: RootFileSystem,
    contents: tuple[Content, ...],
    devices: tuple[BlockDevice, ...],
    can: Abilities,
) -> Storage:
    """All of it, as the tables above say.

    Raises InvalidRequest for what cannot reach the guest, naming the volume or annotation, and ImageFault where a
    kernel's manifest and the disks do not match.
    """
    return _Decision(image, root, can).of(contents, devices)


class _Decision:
    """One decision under way: what the volumes have come to so far. `_extra` is what goes into an image with a root in
    it, and `_more` what comes along."""

    def __init__(self, image: Unikernel, root: RootFileSystem, can: Abilities) -> None:
        self._image, self._root, self._can = image, root, can
        self._volumes: list[Part] = []
        self._shares: list[Share] = []
        self._extra: dict[str, Content] = {}
        self._more: dict[str, Content] = {}
        self._notes: list[str] = []

    def of(self, contents: tuple[Content, ...], devices: tuple[BlockDevice, ...]) -> Storage:
        blocks = [*self._blocks(devices), *self._named(devices)]
        root = self._root_part(blocks)
        for content in contents:
            if content.role is Role.IMAGE:
                self._notes.append(f"{content.target} is a volume of the image: the guest has what the image has there")
            elif content.role not in _EVERY_PODS:
                self._place(content, root)
        self._place_every_pods([content for content in contents if content.role in _EVERY_PODS], root)
        return self._result(root, blocks)

    def _place_every_pods(self, contents: list[Content], root: Part | Share | Initrd | None) -> None:
        on_disk = isinstance(root, Part) and not self._in_memory()
        # Behind an initrd of the image's own its directories would take the place of links that are not known here, as
        # /var/run mostly is one.
        is_unknown = root is None
        for content in contents:
            if self._extra and not (content.role is Role.ACCOUNT and (on_disk or is_unknown)):
                self._more[content.target] = content
            elif content.role is Role.ACCOUNT:
                self._notes.append(f"{content.target} is not in the guest")

    def _in_memory(self) -> bool:
        """Whether anything that goes into an image came from memory. The pod's own files for names are kept in memory
        too, and are no secret."""
        return any(
            content.in_memory
            for content in (*self._extra.values(), *self._more.values())
            if content.role in (Role.VOLUME, Role.ACCOUNT)
        )

    def _result(self, root: Part | Share | Initrd | None, blocks: list[Part]) -> Storage:
        extra = {target: content.source for target, content in (self._more | self._extra).items()}
        in_memory = self._in_memory()
        parts, shares, initrd = [*blocks, *self._volumes], list(self._shares), None
        if isinstance(root, Part):
            # The image's own block for the root is among the blocks.
            if root.origin == "tree":
                root = msgspec.structs.replace(root, extra=extra, in_memory=in_memory)
            parts = [root, *(part for part in parts if part is not root)]
        elif isinstance(root, Share):
            shares.insert(0, root)
        elif isinstance(root, Initrd) or extra:
            tree = root.tree if isinstance(root, Initrd) else None
            initrd = Initrd(tree=tree, extra=extra, in_memory=in_memory)
        # Linux finds what is in its initrd without a word.
        is_own = root is None and self._image.root == "auto" and self._image.initrd is not None
        return Storage(
            parts=_with_devices(parts, self._image),
            shares=tuple(shares),
            initrd=initrd,
            unpacked=isinstance(root, Initrd)
            or (is_own and CPIO in self._can.roots and self._image.guest != _GROWS_INITRD),
            notes=tuple(self._notes),
        )

    def _blocks(self, devices: tuple[BlockDevice, ...]) -> Iterator[Part]:
        """The image's own, and block devices of the pod that an annotation names."""
        by_path = {device.path: device for device in devices}
        for block in self._image.blocks:
            found = by_path.get(str(block.path))
            if found is None and block.path.is_relative_to("/dev"):
                raise InvalidRequest("the pod has no such block device", subject=str(block.path))
            yield Part(
                origin="file" if found is None else "device",
                source=block.path,
                target=block.target,
                device=block.device,
                read_only=block.read_only or (found is not None and found.read_only),
                numbers=None if found is None else (found.major, found.minor),
            )

    def _named(self, devices: tuple[BlockDevice, ...]) -> Iterator[Part]:
        """The pod's other block devices: bare disks."""
        taken = {str(block.path) for block in self._image.blocks}
        for device in devices:
            if device.path not in taken:
                yield Part(
                    origin="device",
                    source=Path(device.path),
                    read_only=device.read_only,
                    numbers=(device.major, device.minor),
                )

    def _root_part(self, blocks: list[Part]) -> Part | Share | Initrd | None:
        """The guest's root: one of `blocks`, something made of the container's root file system, or None."""
        asked = self._image.root
        own = next((part for part in blocks if part.target == _ROOT), None)
        if own is not None and asked in ("auto", "none"):
            return own
        if own is not None:
            raise InvalidRequest(
                f"{asked!r} and the block {own.source.name} would both be the guest's root",
                subject=f"{PREFIX}root",
                remedy="remove one of them",
            )
        if asked == "none" or (asked == "auto" and not self._has_root(len(blocks))):
            return None
        if asked == "auto":
            disks = self._disk_roots()
            return self._as_disk(self._root.format if self._root.format in disks else disks[0], writable=False)
        if asked not in self._possible_roots():
            raise InvalidRequest(
                f"{self._image.guest} guests under {self._can.monitor} have no root that is {asked!r}",
                subject=f"{PREFIX}root",
                remedy=f"choose one of {', '.join(('auto', 'none', *self._possible_roots()))}",
            )
        if asked == SHARED:
            return Share(source=self._root.directory, target=self._image.root_target, read_only=self._root.read_only)
        if asked == CPIO:
            if self._image.initrd is not None:
                raise InvalidRequest(
                    "the image has an initrd of its own", subject=f"{PREFIX}root", remedy="remove one of them"
                )
            return Initrd(tree=self._root.directory)
        return self._as_disk(asked, writable=file_system(asked).writable)

    def _has_root(self, disks: int) -> bool:
        """Whether the container's root file system is the guest's where nobody says."""
        if self._image.initrd is not None or self._root.is_bare or not self._disk_roots():
            return False
        devices = self._image.kernel.block_devices
        return self._image.guest == _GROWS_INITRD or (devices is not None and len(devices) == disks + 1)

    def _as_disk(self, format: str, *, writable: bool) -> Part:
        if self._root.device is not None and self._root.format == format:
            return Part(
                origin="device",
                source=self._root.device,
                target=self._image.root_target,
                format=format,
                read_only=self._root.read_only,
            )
        return Part(
            origin="tree",
            source=self._root.directory,
            target=self._image.root_target,
            format=format,
            read_only=self._root.read_only or not writable,
        )

    def _disk_roots(self) -> list[str]:
        return [name for name in self._can.roots if name in _DISKS]

    def _possible_roots(self) -> list[str]:
        return [
            name
            for name in self._can.roots
            if name in (*_DISKS, CPIO) or (name == SHARED and self._can.shares_directories)
        ]

    def _place(self, content: Content, root: Part | Share | Initrd | None) -> None:
        """A volume into the first place that there is for it. Raises InvalidRequest where there is none."""
        shares = SHARED in self._can.mounts and self._can.shares_directories
        if content.nature in ("block", "other"):
            raise self._refused(content, "is no file and no directory", "name a block device in volumeDevices")
        if not content.read_only:
            if content.nature == "file" or not shares:
                raise self._refused(
                    content,
                    "is to be written to, and this guest cannot be given a directory of the node to write to"
                    if not shares
                    else "is a file to be written to",
                    "mount it with readOnly: true, or use a block volume (volumeDevices)",
                )
            self._shares.append(Share(source=content.source, target=content.target, read_only=False))
        elif content.nature == "directory" and (way := self._way(shares)) and not self._is_file_first(root):
            if way == SHARED:
                self._shares.append(Share(source=content.source, target=content.target, read_only=True))
            else:
                self._volumes.append(
                    Part(
                        origin="tree",
                        source=content.source,
                        target=content.target,
                        format=way,
                        in_memory=content.in_memory,
                    )
                )
        elif self._holds_files(root):
            self._extra[content.target] = content
        else:
            raise self._refused(
                content,
                f"cannot reach a {self._image.guest} guest that has no root of the container's",
                f"give it one with {PREFIX}root, use a block volume (volumeDevices), or say it in args or env",
            )

    def _way(self, shares: bool) -> str:
        """How the guest can be told to mount a directory: a format, or ""."""
        return next((name for name in self._can.mounts if name in _DISKS or (name == SHARED and shares)), "")

    def _is_file_first(self, root: Part | Share | Initrd | None) -> bool:
        """Whether a directory is put where the guest has its root although the guest can be told to mount it."""
        return self._image.guest == _GROWS_INITRD and self._holds_files(root)

    def _holds_files(self, root: Part | Share | Initrd | None) -> bool:
        """Whether files can be put where the guest has its root."""
        if root is None:
            return self._image.guest == _GROWS_INITRD and self._image.initrd is not None
        return isinstance(root, Initrd) or (isinstance(root, Part) and root.origin == "tree")

    @staticmethod
    def _refused(content: Content, why: str, remedy: str) -> InvalidRequest:
        return InvalidRequest(f"this volume {why}", subject=content.target, remedy=remedy)


def _with_devices(parts: list[Part], image: Unikernel) -> tuple[Part, ...]:
    """The disks with the devices of the kernel's manifest. Raises ImageFault unless each has one, and each device a
    disk: a tender ends where one is missing."""
    names = image.kernel.block_devices
    if names is None:
        return tuple(parts)
    said = [part.device for part in parts if part.device]
    left = [name for name in names if name not in said]
    if set(said) <= set(names) and len(set(said)) == len(said) and len(left) == len(parts) - len(said):
        free = iter(left)
        return tuple(part if part.device else msgspec.structs.replace(part, device=next(free)) for part in parts)
    disks = ", ".join(part.device or part.target or part.source.name for part in parts)
    raise ImageFault(
        f"the kernel's manifest asks for the block devices [{', '.join(names) or 'none'}], "
        f"its disks are [{disks or 'none'}]",
        subject=image.path.name,
        remedy=f"name a file of the image for each in {PREFIX}block, or give the pod as many volumeDevices",
    )
