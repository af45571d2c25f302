"""`unikernel-shim image build`: from files of this machine to an archive, or to an error and nothing."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from shim.cli import image_inspect
from shim.cli.image_contents import Contents, Request, contents
from shim.config import Config
from shim.errors import AlreadyExists, ImageFault, InvalidRequest, NodeFault
from shim.oci.archive.documents import ARCHITECTURES
from shim.oci.archive.packing import items
from shim.oci.archive.writer import Order, Written, write
from shim.sandbox.explain import Explanation

_STDOUT = Path("-")


def build(request: Request, config: Config, *, as_json: bool) -> str:
    """Write the archive; a summary as text or as JSON.

    Raises InvalidRequest and AlreadyExists for the request, ImageFault for what is to be packed, NodeFault where it
    cannot be written. Whatever is raised, no archive is there that was not there before.
    """
    moment = _moment()
    try:
        image = contents(request)
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


def _proven(file: BinaryIO, image: Contents, config: Config) -> Explanation | None:
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
    request: Request, image: Contents, written: Written, explanation: Explanation | None, *, as_json: bool
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
