"""What an image made for urunc says of itself: `com.urunc.unikernel.*` annotations, and the file `urunc.json`. Pure.

Names and meanings are those of urunc (pkg/unikontainers/config.go, unikontainers.go, docs/package/index.md): every
value is base64 of its text, in annotations as in the file; the file is one JSON object at the image's top, because
containerd shows a runtime no annotation of an image. Names that urunc does not know it passes over, and so do we.

    unikernelType     guest                      block        the guest's disk, mounted at blkMntPoint
    hypervisor        monitor                    blkMntPoint  without it, where urunc's guests look for the disk
    binary            kernel                     useDMBlock   whether the guest gets the root file system; in later
    initrd            initrd                     mountRootfs  versions by this name
    unikernelVersion  version                    cmdline      arguments, where the container has none

The container's own arguments win over `cmdline`, and the first of them is the guest's program (Unikontainer.Exec() and
the files of pkg/unikontainers/unikernels).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from shim.errors import ImageFault, InvalidRequest, ShimError
from shim.oci.annotations import VERSION, BlockWish, Wishes
from shim.oci.support import GUESTS, MONITORS

PREFIX = "com.urunc.unikernel."
FILE = "urunc.json"
#: Bytes of the file that are read at most. The longest value is a command line, and Linux's have 2 KiB.
LIMIT = 1 << 16
_NAMES = (
    *("unikernelType", "unikernelVersion", "binary", "cmdline", "hypervisor", "initrd"),
    *("block", "blkMntPoint", "useDMBlock", "mountRootfs"),
)
# Go's encoding/json matches a field's name in any case.
_FOLDED = {f"{PREFIX}{name}".casefold(): name for name in _NAMES}
# Where the guests that are told where their disk is have it without a word: rumprun.go's mount point, and the root that
# linux.go names on the command line. Others find a bare disk, whatever a mount point says (bunny always says one).
_MOUNTED = {"rumprun": "/data", "linux": "/"}
_FALSE = ("0", "f", "F", "false", "False", "FALSE")  # Go, strconv.ParseBool
_FIELDS = {
    "unikernelType": "guest",
    "unikernelVersion": "version",
    "binary": "kernel",
    "hypervisor": "monitor",
    "initrd": "initrd",
    "block": "block",
    "useDMBlock": "root",
    "mountRootfs": "root",
}


def from_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """The values by urunc's names without their prefix, decoded. Raises InvalidRequest naming the annotation."""
    found = {}
    for name in _NAMES:
        if value := annotations.get(f"{PREFIX}{name}"):
            found[name] = _decoded(value, InvalidRequest, f"{PREFIX}{name}")
    return found


def from_file(data: bytes) -> dict[str, str]:
    """The values in the file's bytes, as `from_annotations`. Raises ImageFault naming the file."""
    try:
        parsed = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ImageFault(f"it is not JSON: {error}", subject=FILE, remedy="build the image again") from error
    if not isinstance(parsed, dict):
        raise ImageFault("it is not one JSON object", subject=FILE, remedy="build the image again")
    found = {}
    for key, value in parsed.items():
        name = _FOLDED.get(key.casefold())
        if name is None or value is None:
            continue
        if not isinstance(value, str):
            raise ImageFault(f"the value of {PREFIX}{name} is no string", subject=FILE, remedy="build the image again")
        if value:
            found[name] = _decoded(value, ImageFault, f"{FILE}: {PREFIX}{name}")
    if not found.get("binary"):
        raise ImageFault(f"it names no kernel in {PREFIX}binary", subject=FILE, remedy="build the image again")
    return found


def _decoded(value: str, error: type[ShimError], subject: str) -> str:
    try:
        # Line breaks are passed over, as Go's base64.StdEncoding does.
        text = base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as why:
        raise error(
            f"{value[:64]!r} is not the base64 of a text",
            subject=subject,
            remedy="urunc's values are base64: `printf %s VALUE | base64 -w0`",
        ) from why
    if "\0" in text:
        raise error("the value holds a NUL byte", subject=subject, remedy="leave it out")
    return text


def wishes(file: Mapping[str, str], annotations: Mapping[str, str]) -> Wishes:
    """What both say, an annotation before the file. Raises InvalidRequest or ImageFault for what we do not have."""
    values = {**file, **annotations}
    if not values:
        return Wishes()
    keys = {name: f"{PREFIX}{name}" if name in annotations else f"{FILE}: {PREFIX}{name}" for name in values}

    def refused(name: str, why: str, remedy: str) -> ShimError:
        fault = InvalidRequest if name in annotations else ImageFault
        return fault(f"{values[name]!r} {why}", subject=keys[name], remedy=remedy)

    for name, known in (("unikernelType", GUESTS), ("hypervisor", MONITORS)):
        if name in values and values[name] not in known:
            raise refused(name, "does not run here", f"what works is {', '.join(known)}")
    mounted = values.get("blkMntPoint", "")
    if mounted and not mounted.startswith("/"):
        raise refused("blkMntPoint", "is no absolute path", "write one")
    guest, block = values.get("unikernelType", ""), values.get("block", "")
    target = mounted or _MOUNTED[guest] if guest in _MOUNTED else ""
    version = values.get("unikernelVersion", "")
    return Wishes(
        kernel=values.get("binary", ""),
        monitor=values.get("hypervisor", ""),
        guest=guest,
        # urunc takes a version that it cannot read for the newest.
        version=version if VERSION.fullmatch(version) else "",
        initrd=values.get("initrd", ""),
        root="auto" if _mounts_root(values) else "none",
        root_target=mounted or _MOUNTED.get(guest, "/"),
        blocks=(BlockWish(block, target=target),) if block else (),
        default_arguments=tuple(values.get("cmdline", "").split()),
        names_program=True,
        said_by={_FIELDS[name]: key for name, key in keys.items() if name in _FIELDS},
    )


def _mounts_root(values: Mapping[str, str]) -> bool:
    """Whether the root file system is the guest's: not where the image brings a disk, nor an initrd, unless it says so;
    what is not false is true."""
    said = values.get("mountRootfs") or values.get("useDMBlock") or ""
    if values.get("block"):
        return False
    return said not in _FALSE if said else not values.get("initrd")
