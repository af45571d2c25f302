"""`unikernel-shim image build`: from files of this machine to an archive, or to an error and nothing."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from shim.cli import image_inspect
from shim.config import Config
from shim.errors import AlreadyExists, ImageFault, InvalidRequest, NodeFault
from shim.oci import kernel as kernels
from shim.oci import packed, urunc
from shim.oci.annotations import PREFIX, wishes
from shim.oci.archive.documents import ARCHITECTURES, Process
from shim.oci.archive.packing import items
from shim.oci.archive.writer import Order, Written, write
from shim.oci.explain import Explanation
from shim.oci.kernel import Kernel

#: Where an image has its parts.
KERNEL, INITRD, _OWN = "/unikernel/kernel", "/unikernel/initrd", "/unikernel"

_STDOUT = Path("-")
# The device's name as a Solo5 manifest has it (MFT_NAME_SIZE and its check), the rest as io.unikernel.block has it.
_BLOCK = re.compile(r"(?:(?P<device>[A-Za-z0-9]{1,67})=)?(?P<file>.+?)(?::(?P<target>/[^:,]*))?(?::(?P<mode>ro|rw))?")
# What the version of the ABI was when each tender was last changed (Solo5 0.12, include/hvt_abi.h, spt_abi.h): a tender
# refuses a kernel of another one.
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


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be in the image: `files` by their paths in it, and the annotations that it is described by."""

    kernel: Kernel
    files: dict[str, Path | bytes]
    described: dict[str, str]
    shown: dict[str, str]
    process: Process


def build(request: Request, config: Config, *, as_json: bool) -> str:
    """Write the archive; a summary as text or as JSON.

    Raises InvalidRequest and AlreadyExists for the request, ImageFault for what is to be packed, NodeFault where it
    cannot be written. Whatever is raised, no archive is there that was not there before.
    """
    moment = _moment()
    _check_words(request)
    try:
        image = _image(request)
        _check_output(request)
        entries = items(request.root, image.files)
    except OSError as error:
        raise ImageFault(
            f"it cannot be packed: {error.strerror}", subject=os.fspath(error.filename or request.kernel)
        ) from error
    order = Order(
        architecture=ARCHITECTURES[image.kernel.machine],
        process=image.process,
        entries=entries,
        name=request.name,
        annotations=image.shown,
        moment=moment,
    )
    with _sink(request) as (file, scratch):
        written = write(file, order, scratch)
        file.flush()
        explanation = _proven(file, image, config)
    return _summary(request, image, written, explanation, as_json=as_json)


def _moment() -> int:
    """The time of everything in the image (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    # Until 2242, the last moment that a tar's own field for it holds (ustar: 11 octal digits).
    if not re.fullmatch(r"[0-9]{1,11}", text) or int(text) >= 1 << 33:
        raise InvalidRequest(f"{text!r} is not a time in seconds since 1970", subject="SOURCE_DATE_EPOCH")
    return int(text)


def _check_words(request: Request) -> None:
    """Raise InvalidRequest for what no JSON document can hold."""
    given = (*request.blocks, *request.wishes.values(), *request.annotations, *request.arguments, *request.environment)
    for word in given:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("an image's documents are UTF-8, and this is not", subject=ascii(word)) from error


def _image(request: Request) -> _Image:
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
    return _Image(kernel=kernel, files=files, described=described, shown=described | foreign, process=process)


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


def _check_output(request: Request) -> None:
    if request.output == _STDOUT:
        if sys.stdout.isatty():
            raise InvalidRequest(
                "an archive is not for a terminal", subject="--output -", remedy="redirect it, or name a file"
            )
    elif request.output.is_dir():
        raise InvalidRequest("it is a directory", subject=os.fspath(request.output), remedy="name a file in it")
    elif os.path.lexists(request.output) and not request.force:
        raise AlreadyExists(
            "the file is there already", subject=os.fspath(request.output), remedy="say --force to replace it"
        )


@contextlib.contextmanager
def _sink(request: Request) -> Iterator[tuple[BinaryIO, Path]]:
    """A file to write the archive into, and the directory that it is in: it is the output once the block is left well.

    Raises NodeFault where there is no room or no permission.
    """
    streamed = request.output == _STDOUT
    directory = Path(tempfile.gettempdir()) if streamed else request.output.absolute().parent
    try:
        descriptor, name = tempfile.mkstemp(prefix=".unikernel-image-", dir=directory)
        own = Path(name)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield cast(BinaryIO, file), directory
                if streamed:
                    file.seek(0)
                    while piece := file.read(1 << 20):
                        sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
                else:
                    os.fchmod(file.fileno(), 0o666 & ~_umask())
            if not streamed:
                own.replace(request.output)
        finally:
            own.unlink(missing_ok=True)
    except OSError as error:
        raise NodeFault(
            f"the archive cannot be written: {error.strerror}", subject=os.fspath(request.output)
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _proven(file: BinaryIO, image: _Image, config: Config) -> Explanation | None:
    """What a pod would make of the archive, None where the kernel is for another machine. Raises ImageFault where a
    pod would be refused."""
    if image.kernel.machine != os.uname().machine:
        return None
    with os.fdopen(os.dup(file.fileno()), "rb") as copy:
        copy.seek(0)
        explanation = image_inspect.archive(copy, config)
    if explanation.refusal is not None:
        raise ImageFault(f"a pod of this image would be refused: {explanation.refusal.message}")
    return explanation


def _summary(
    request: Request, image: _Image, written: Written, explanation: Explanation | None, *, as_json: bool
) -> str:
    facts = explanation.facts if explanation else {}
    found = {
        "output": os.fsencode(request.output).decode(errors="replace"),
        "name": request.name,
        "platform": f"linux/{ARCHITECTURES[image.kernel.machine]}",
        "digest": written.digest,
        "compressed": written.compressed,
        "unpacked": written.unpacked,
        "guest": facts["guest"].value if "guest" in facts else image.kernel.family,
        "monitor": facts["monitor"].value if "monitor" in facts else image.kernel.tender,
        "annotations": dict(sorted(image.described.items())),
    }
    if as_json:
        return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
    lines = [f"{found['output']}: {request.name or 'an image without a name'}, {found['platform']}"]
    runs = f"{found['guest']} on {found['monitor']}" if found["monitor"] else found["guest"]
    lines.append(f"  runs as {runs}" + ("" if explanation else " (for another machine than this: not tried)"))
    lines.append(f"  layer {written.compressed} bytes, {written.unpacked} unpacked")
    lines.append(f"  {written.digest}")
    return "\n".join(lines) + "\n"
