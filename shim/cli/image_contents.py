"""From the options of `image build` to what is in the image, and what the image says of itself."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim.cli.image_words import check_text, pair
from shim.errors import ImageFault, InvalidRequest
from shim.oci import kernel as kernels
from shim.oci import packed, urunc
from shim.oci.annotations import PREFIX, Wishes, wishes
from shim.oci.archive.documents import ARCHITECTURES, Process
from shim.oci.kernel import Kernel
from shim.oci.pairing import NABLA, check_words, may_be_unmarked
from shim.oci.support import monitors_of

# Where an image has its parts.
_KERNEL, _INITRD, _OWN = "/unikernel/kernel", "/unikernel/initrd", "/unikernel"

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
    """What is to be in the image: `files` by their paths in it; `described` are the annotations that it carries inside,
    `shown` those of its manifest."""

    kernel: Kernel
    files: dict[str, Path | bytes]
    described: dict[str, str]
    shown: dict[str, str]
    process: Process


def contents(request: Request) -> Contents:
    """What the options ask for; of files only the kernel's headers are read.

    Raises InvalidRequest for an option that makes no sense, ImageFault for a kernel that is none, or not ours, OSError.
    """
    _check_words(request)
    kernel = _kernel(request)
    if request.root is not None and not request.root.is_dir():
        raise InvalidRequest("there is no such directory", subject=os.fspath(request.root))
    # Nabla kernels are told by their name.
    place = f"{_KERNEL}{NABLA if request.kernel.name.endswith(NABLA) else ''}"
    files: dict[str, Path | bytes] = {place: request.kernel}
    described, foreign = _annotations(request, place, files)
    entrypoint: list[str] | None = [place]
    if request.urunc:
        values = _for_urunc(request, kernel, wishes(described))
        files[f"/{urunc.FILE}"] = msgspec.json.format(msgspec.json.encode(values), indent=2) + b"\n"
        foreign |= values
        # urunc hands all of a container's arguments to the guest, also the kernel's path.
        entrypoint = None
    files[packed.PATH] = packed.encode(described)
    shown = dict(sorted((described | foreign).items()))
    process = Process(
        entrypoint=entrypoint,
        cmd=list(request.arguments) or None,
        env=list(request.environment) or None,
        labels=shown,
    )
    return Contents(kernel=kernel, files=files, described=described, shown=shown, process=process)


def _annotations(
    request: Request, kernel: str, files: dict[str, Path | bytes]
) -> tuple[dict[str, str], dict[str, str]]:
    """The annotations of ours and of others, and into `files` what they speak of."""
    described = {f"{PREFIX}kernel": kernel}
    described |= {f"{PREFIX}{name}": value for name, value in request.wishes.items()}
    if request.initrd is not None:
        files[_INITRD] = _existing(request.initrd)
        described[f"{PREFIX}initrd"] = _INITRD
    if request.blocks:
        described[f"{PREFIX}block"] = ",".join(_block(text, files) for text in request.blocks)
    foreign = {}
    for word in request.annotations:
        key, value = pair(word, "--annotation")
        if not key.startswith(PREFIX):
            foreign[key] = value
        elif described.setdefault(key, value) != value:
            raise InvalidRequest("an option says otherwise", subject=key, remedy="say it once")
    check_words(wishes(described))  # What is unknown or senseless is refused before anything is packed.
    return described, foreign


def _check_words(request: Request) -> None:
    """Raise InvalidRequest for words that no image's documents can hold."""
    check_text(
        (*request.blocks, *request.wishes.values(), *request.annotations, *request.arguments, *request.environment)
    )
    if request.name and not _NAME.fullmatch(request.name):
        raise InvalidRequest("no image can have this name", subject=repr(request.name))
    for word in request.environment:
        pair(word, "--env")


def _kernel(request: Request) -> Kernel:
    path, name = _existing(request.kernel), os.fspath(request.kernel)
    kernel = kernels.read(path, name)
    if kernel is None and may_be_unmarked(request.wishes.get("guest", "")):
        # Its headers say of no machine, or of this one.
        kernels.check_elf_machine(path, name)
        kernel = Kernel(family="", machine=os.uname().machine)
    if kernel is None:
        raise ImageFault(
            "the file is no kernel that is known here",
            subject=name,
            remedy="--guest says what a kernel without headers of its own is",
        )
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


def _for_urunc(request: Request, kernel: Kernel, said: Wishes) -> dict[str, str]:
    """What urunc reads, each value in base64 (urunc, pkg/unikontainers/config.go)."""
    guest = said.guest or kernel.guest or kernel.family
    if guest == "solo5":
        raise InvalidRequest(
            "urunc must know which family a Solo5 kernel is of",
            subject="--urunc",
            remedy="say --guest mirage or rumprun",
        )
    if not request.arguments:
        raise InvalidRequest(
            "a container for urunc needs an argument: all that it has are the guest's",
            subject="--urunc",
            remedy="say --arg",
        )
    if len(said.blocks) > 1:
        raise InvalidRequest("urunc attaches one disk at most", subject="--block", remedy="leave --urunc out")
    values = {
        "unikernelType": guest,
        "hypervisor": said.monitor or kernel.tender or next(iter(monitors_of(guest)), ""),
        "binary": said.kernel,
        "cmdline": " ".join(request.arguments),
        "initrd": said.initrd,
    }
    for block in said.blocks:
        values |= {"block": block.path, "blkMntPoint": block.target}
    return {f"{urunc.PREFIX}{key}": base64.b64encode(value.encode()).decode() for key, value in values.items() if value}
