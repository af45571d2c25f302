"""What an image or a pod wishes for, in `io.unikernel.*` annotations."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from shim.config import Dataplane
from shim.errors import InvalidRequest

PREFIX = "io.unikernel."
_NETWORK = ("auto", "none", "required")
#: How the root file system can be asked to reach a guest, beside "auto" and "none": as a file system's image, as an
#: archive in the initrd's place, or as a directory that the monitor shares.
ROOT_FORMATS = ("iso9660", "ext2", "ext4", "squashfs", "erofs", "cpio", "9p", "virtiofs")
_ROOTS = ("auto", "none", *ROOT_FORMATS)
_DATAPLANE: tuple[str, ...] = get_args(Dataplane)
# A device's name in a manifest (Solo5, MFT_NAME_SIZE and its check).
_DEVICE = r"[A-Za-z0-9]{1,67}"
# An interface's name (linux/if.h, IFNAMSIZ, and dev_valid_name() of net/core/dev.c), less what separates entries here.
_NIC = re.compile(rf"(?:(?P<device>{_DEVICE})=)?(?P<interface>[^\s/:,=]{{1,15}})")
_BLOCK = re.compile(
    rf"(?:(?P<device>{_DEVICE})=)?(?P<path>[^\x00:,=]+)(?::(?P<target>/[^\x00:,]*))?(?::(?P<mode>ro|rw))?"
)
_DEVICES = "/dev/"
# What QEMU calls its machines (`-machine help`), and what projects call their releases.
_MACHINE = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_~-]{0,63}")
# Kubernetes' quantities: binary and decimal suffixes, and here a bare number is MiB, as the tenders' --mem is.
_UNITS = {"": 1 << 20, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "K": 10**3, "k": 10**3, "M": 10**6, "G": 10**9}
_MIB = 1 << 20
_MOST = 1 << 24  # MiB; more than any machine has


class Assignment(msgspec.Struct, frozen=True):
    """A NIC of the guest: the pod's interface, and the device of the kernel's manifest that it is for ("" for none)."""

    interface: str
    device: str = ""


class BlockWish(msgspec.Struct, frozen=True):
    """A disk of the guest: `path` is a file of the image, or under /dev a block device of the pod; `device` is the
    device of the kernel's manifest that it is for ("" for none), `target` where the guest is to mount it ("" nowhere).
    """

    path: str
    device: str = ""
    target: str = ""
    read_only: bool = False

    @property
    def of_pod(self) -> bool:
        """Whether it is a device of the pod, and no file of the image."""
        return self.path.startswith(_DEVICES)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The annotations, read. None and "" stand for what was not said; `memory` is in MiB.

    `default_arguments` are the guest's where the container has none, `root_target` is where the guest mounts its root.
    `names_program` says that the first argument is the guest's program, as a container's is, and not given to it.
    `said_by` has the key that said a field, where it is none of ours.
    """

    kernel: str = ""
    monitor: str = ""
    guest: str = ""
    version: str = ""
    machine: str = ""
    cmdline: str = ""
    memory: int | None = None
    initrd: str = ""
    root: str = "auto"
    root_target: str = "/"
    blocks: tuple[BlockWish, ...] = ()
    network: str = "auto"
    nics: tuple[Assignment, ...] = ()
    dataplane: str = ""
    default_arguments: tuple[str, ...] = ()
    names_program: bool = False
    said_by: Mapping[str, str] = {}

    def key(self, field: str) -> str:
        """The annotation that said `field`, for errors."""
        return self.said_by.get(field, f"{PREFIX}{field}")


def parse_nics(text: str) -> tuple[Assignment, ...]:
    """ "service=net1,management=eth0" or "eth0,net1": either every entry names a device or none does.

    Raises InvalidRequest.
    """
    found = [_NIC.fullmatch(entry.strip()) for entry in text.split(",")]
    wanted = tuple(Assignment(entry["interface"], entry["device"] or "") for entry in found if entry)
    if len(wanted) < len(found) or len({wish.device == "" for wish in wanted}) > 1:
        raise InvalidRequest(
            f"{text!r} is not a list of NICs",
            subject=f"{PREFIX}nics",
            remedy="write service=net1,management=eth0 for a kernel with a manifest, eth0,net1 for one without",
        )
    return wanted


def parse_blocks(text: str) -> tuple[BlockWish, ...]:
    """ "storage=/data.img:ro" or "/data.img:/data,/dev/xvda": either every entry names a device or none does.

    Raises InvalidRequest.
    """
    found = [_BLOCK.fullmatch(entry.strip()) for entry in text.split(",")]
    wanted = tuple(
        BlockWish(entry["path"], entry["device"] or "", entry["target"] or "", entry["mode"] == "ro")
        for entry in found
        if entry
    )
    if len(wanted) < len(found) or len({wish.device == "" for wish in wanted}) > 1:
        raise InvalidRequest(
            f"{text!r} is not a list of block devices",
            subject=f"{PREFIX}block",
            remedy="write [DEVICE=]PATH[:TARGET][:ro|rw], each with a DEVICE or none, with commas between them",
        )
    for wish in wanted:
        # One device must not go by two names: what is the pod's is found by it.
        if wish.of_pod and posixpath.normpath(wish.path) != wish.path:
            raise InvalidRequest(
                f"{wish.path!r} is no plain path of a device",
                subject=f"{PREFIX}block",
                remedy=f"write {posixpath.normpath(wish.path)}",
            )
    targets = [wish.target for wish in wanted if wish.target]
    if len(set(targets)) < len(targets):
        raise InvalidRequest(
            f"{text!r} mounts two block devices at one place",
            subject=f"{PREFIX}block",
            remedy="give each a place of its own",
        )
    return wanted


def parse_memory(text: str) -> int:
    """MiB out of "64", "64Mi", "1Gi" or "64M", rounded down. Raises InvalidRequest."""
    found = re.fullmatch(r"([0-9]{1,12})([KMG]i?|k)?", text.strip())
    mib = int(found[1]) * _UNITS[found[2] or ""] // _MIB if found else 0
    if not 1 <= mib <= _MOST:
        raise InvalidRequest(
            f"{text!r} is not an amount of memory",
            subject=f"{PREFIX}memory",
            remedy="write 64, 64Mi or 1Gi (1 MiB to 16 TiB)",
        )
    return mib


def wishes(annotations: Mapping[str, str], otherwise: Wishes | None = None) -> Wishes:
    """Read the annotations of a container, the pod's already over the image's; `otherwise` is what holds without them.

    Raises InvalidRequest for an unknown key or a value that makes no sense, naming it.
    """
    given: dict[str, str] = {}
    for key, value in annotations.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, 1)
            raise InvalidRequest(
                "unknown annotation",
                subject=key,
                remedy=f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(KNOWN)}",
            )
        if value:
            given[name] = value
    otherwise = otherwise or Wishes()
    read: dict[str, Any] = {name: given[name] for name in _VERBATIM if name in given}
    for name, reader in _READERS.items():
        if name in given:
            read[_FIELDS.get(name, name)] = reader(given[name])
    said_by = {name: key for name, key in otherwise.said_by.items() if name not in given}
    return msgspec.structs.replace(otherwise, **read, said_by=said_by)


def _choice(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise InvalidRequest(
                f"{value!r} is not a choice", subject=f"{PREFIX}{name}", remedy=f"choose one of {', '.join(choices)}"
            )
        return value

    return read


def _matching(name: str, pattern: re.Pattern[str], example: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise InvalidRequest(
                f"{value!r} is not a {name}", subject=f"{PREFIX}{name}", remedy=f"write one as {example}"
            )
        return value

    return read


_VERBATIM = ("kernel", "monitor", "guest", "cmdline", "initrd")
_READERS: dict[str, Callable[[str], object]] = {
    "version": _matching("version", VERSION, "0.17.0"),
    "machine": _matching("machine", _MACHINE, "microvm or q35"),
    "memory": parse_memory,
    "root": _choice("root", _ROOTS),
    "block": parse_blocks,
    "network": _choice("network", _NETWORK),
    "nics": parse_nics,
    "dataplane": _choice("dataplane", _DATAPLANE),
}
#: The names of all annotations, without their prefix.
KNOWN = (*_VERBATIM, *_READERS)
# Where the field of Wishes is called otherwise than its annotation.
_FIELDS = {"block": "blocks"}
