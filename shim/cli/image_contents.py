"""From the options of `image build` to what is in the image, and what the image says of itself."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim.errors import ImageFault, InvalidRequest
from shim.oci import kernel as kernels
from shim.oci import packed, urunc
from shim.oci.annotations import PREFIX, wishes
from shim.oci.archive.documents import ARCHITECTURES, Process
from shim.oci.kernel import Kernel

#: Where an image has its parts.
KERNEL, INITRD, _OWN = "/unikernel/kernel", "/unikernel/initrd", "/unikernel"

# The device's name as a Solo5 manifest has it (MFT_NAME_SIZE and its check), the rest as io.unikernel.block has it.
_BLOCK = re.compile(r"(?:(?P<device>[A-Za-z0-9]{1,67})=)?(?P<file>.+?)(?::(?P<target>/[^:,]*))?(?::(?P<mode>ro|rw))?")
# HVT_ABI_VERSION and SPT_ABI_VERSION (include/hvt_abi.h, spt_abi.h) of Solo5 0.8 to 0.12.1. A tender refuses a kernel
# of another one.
_SOLO5_ABI = 2
# org.opencontainers.distribution: a reference's characters; importers check the rest.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The options, as they were given; `wishes` are those with an annotation of their own, by its name."""

    kernel: Path
    output: Path
    root: Path | None = None
    initrd: Path | None = None
    blocks: tuple[str, ...] = ()
    wishes: Mapping[str, str] = {}
    annotations: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    name: str = ""
    urunc: bool = False
    force: bool = False


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be in the image: `files` by their paths in it, and the annotations that it is described by."""

    kernel: Kernel
    files: dict[str, Path | bytes]
    described: dict[str, str]
    shown: dict[str, str]
    process: Process


def contents(request: Request) -> Contents:
    """What the options ask for; blocks on the kernel's headers alone.

    Raises InvalidRequest for an option that makes no sense, ImageFault for a kernel that is none, or not ours, OSError.
    """
    _check_words(request)
    kernel = _kernel(request.kernel)
    if request.root is not None and not request.root.is_dir():
        raise InvalidRequest("there is no such directory", subject=os.fspath(request.root))
    if request.name and not _NAME.fullmatch(request.name):
        raise InvalidRequest("no image can have this name", subject=repr(request.name))
    for word in request.environment:
        _pair(word, "--env")
    files: dict[str, Path | bytes] = {KERNEL: request.kernel}
    described, foreign = {f"{PREFIX}kernel": KERNEL}, {}
    for name, value in request.wishes.items():
        described[f"{PREFIX}{name}"] = value
    if request.initrd is not None:
        files[INITRD] = _existing(request.initrd)
        described[f"{PREFIX}initrd"] = INITRD
    if request.blocks:
        described[f"{PREFIX}block"] = ",".join(_block(text, files) for text in request.blocks)
    for word in request.annotations:
        key, value = _pair(word, "--annotation")
        if not key.startswith(PREFIX):
            foreign[key] = value
        elif described.setdefault(key, value) != value:
            raise InvalidRequest("an option says otherwise", subject=key, remedy="say it once")
    wishes(described)  # An unknown or senseless one is refused before anything is packed.
    process = Process(
        entrypoint=[KERNEL],
        cmd=list(request.arguments) or None,
        env=list(request.environment) or None,
        labels=dict(sorted((described | foreign).items())),
    )
    if request.urunc:
        values = _for_urunc(request, kernel, described)
        files[f"/{urunc.FILE}"] = msgspec.json.format(msgspec.json.encode(values), indent=2) + b"\n"
        foreign |= values
        # urunc hands all of a container's arguments to the guest, also the kernel's path.
        process = msgspec.structs.replace(process, entrypoint=None, labels=(process.labels or {}) | values)
    files[packed.PATH] = packed.encode(described)
    return Contents(kernel=kernel, files=files, described=described, shown=described | foreign, process=process)


def _check_words(request: Request) -> None:
    """Raise InvalidRequest for what no JSON document can hold."""
    given = (*request.blocks, *request.wishes.values(), *request.annotations, *request.arguments, *request.environment)
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("an image's documents are UTF-8, and this is not", subject=ascii(word)) from error


def _kernel(path: Path) -> Kernel:
    name = os.fspath(path)
    kernel = kernels.read(_existing(path), name)
    if kernel is None:
        raise ImageFault("the file is no kernel that is known here", subject=name)
    if kernel.machine not in ARCHITECTURES:
        raise ImageFault(
            f"the kernel is built for {kernel.machine}", subject=name, remedy=f"known are {', '.join(ARCHITECTURES)}"
        )
    if kernel.abi > _SOLO5_ABI:
        raise ImageFault(
            f"the kernel speaks version {kernel.abi} of Solo5's ABI, and tenders up to {_SOLO5_ABI} are known",
            subject=name,
            remedy="build it with a Solo5 release that is known here",
        )
    return kernel


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InvalidRequest("there is no such file", subject=os.fspath(path))
    return path


def _block(text: str, files: dict[str, Path | bytes]) -> str:
    """Take up one --block; what the annotation says of it."""
    found = _BLOCK.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"{text!r} is not a block device", subject="--block", remedy="write [DEVICE=]FILE[:/TARGET][:ro]"
        )
    number = sum(path.startswith(f"{_OWN}/disk") for path in files)
    path = f"{_OWN}/disk-{found['device'] or number}.img"
    if path in files:
        raise InvalidRequest("two files for one device", subject=f"--block {text}", remedy="name each device once")
    files[path] = _existing(Path(found["file"]))
    device = f"{found['device']}=" if found["device"] else ""
    return f"{device}{path}" + "".join(f":{found[name]}" for name in ("target", "mode") if found[name])


def _pair(word: str, option: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals or "\0" in word:
        raise InvalidRequest(f"{word!r} is not NAME=VALUE", subject=option)
    return key, value


def _for_urunc(request: Request, kernel: Kernel, described: Mapping[str, str]) -> dict[str, str]:
    """What urunc reads, each value in base64 (urunc, pkg/unikontainers/config.go)."""
    said = wishes(described)
    guest = said.guest or kernel.guest or kernel.family
    if guest == "solo5":
        raise InvalidRequest(
            "urunc must know which family a Solo5 kernel is of",
            subject="--urunc",
            remedy="say --guest mirage or rumprun",
        )
    if not request.arguments:
        raise InvalidRequest(
            "a container for urunc needs an argument: all that it has are the guest's", subject="--urunc",
            remedy="say --arg",
        )  # fmt: skip
    if len(said.blocks) > 1:
        raise InvalidRequest("urunc attaches one disk at most", subject="--block", remedy="leave --urunc out")
    values = {
        "unikernelType": guest,
        "hypervisor": said.monitor or kernel.tender or "qemu",
        "binary": KERNEL,
        "cmdline": " ".join(request.arguments),
        "initrd": said.initrd,
        **{
            name: value
            for block in said.blocks
            for name, value in (("block", block.path), ("blkMntPoint", block.target))
        },
    }
    return {f"{urunc.PREFIX}{key}": base64.b64encode(value.encode()).decode() for key, value in values.items() if value}
