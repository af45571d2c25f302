"""Where a container's log is on this node, and reading it as it grows, is rotated, and is begun again.

The kubelet names a file DIRECTORY/CONTAINER/N.log, N counting the container's lives, and moves one that is full out of
the way, for the container's next line to begin another of the same name (Kubernetes, pkg/kubelet/kuberuntime,
helpers.go and logs).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

from shim.errors import InvalidRequest, NodeFault, NotFound

if TYPE_CHECKING:
    from shim.wire import inspection_pb2 as pb

_LOOK: Final = 0.2  # seconds until a file that is followed is looked at again
_CHUNK: Final = 1 << 16


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A container's log: the kubelet's `directory` for its lives, or the one `file` that it writes to itself."""

    directory: Path | None = None
    file: Path | None = None


def source(answer: pb.LogsResponse, wanted: str) -> Source:
    """The log of the container of that name or id; "" for the unikernel, or the only one there is.

    Raises NotFound where nobody keeps one, or there is no such container, InvalidRequest where several may be meant.
    """
    found = container(answer, wanted)
    if found is not None and found.stdout.startswith("file://"):
        return Source(file=Path(unquote(urlsplit(found.stdout).path)))
    if answer.directory:
        top = Path(answer.directory)
        return Source(directory=top / _directory(top, found.name if found is not None else wanted))
    if found is None:
        raise NotFound(
            "there is no such container in it" if wanted else "there is no unikernel in it",
            subject=wanted or answer.id,
            remedy="name one with -c: " + (", ".join(it.name or it.id for it in answer.containers) or "it has none"),
        )
    said = f"; its monitor last said: {found.words}" if found.words else ""
    raise NotFound(
        f"nobody keeps a log of it on this node that is known here: whoever started it reads what it says{said}",
        subject=found.id,
        remedy="look there, or start it with ctr run --log-uri file:///PATH; for a pod kubectl logs, crictl logs",
    )


def container(answer: pb.LogsResponse, wanted: str) -> pb.LoggedContainer | None:
    """Which of a pod's containers is meant by a name, an id or the beginning of one; "" means the unikernel, or the
    only container of what is no pod. None where there is no such container (any more)."""
    if wanted:
        found = [it for it in answer.containers if wanted in (it.name, it.id)]
        found = found or [it for it in answer.containers if it.id.startswith(wanted)]
    else:
        alone = len(answer.containers) == 1 and not answer.directory
        found = [it for it in answer.containers if it.unikernel or alone]
    return found[-1] if found else None


def _directory(top: Path, name: str) -> str:
    """The name of a container's directory below `top`: one that is there, as names come from whoever asks."""
    try:
        there = sorted(entry.name for entry in top.iterdir() if entry.is_dir())
    except OSError as error:
        raise NotFound(f"the pod's logs are not there: {os.strerror(error.errno or 0)}", subject=str(top)) from error
    if name in there:
        return name
    if not name and len(there) == 1:
        return there[0]
    if not there:
        raise NotFound("none of its containers has written anything yet", subject=str(top))
    remedy = f"name one with -c: {', '.join(there)}"
    if name:
        raise NotFound("no container of that name has a log", subject=name, remedy=remedy)
    raise InvalidRequest("the pod has no unikernel now, and logs of several containers", remedy=remedy)


def lives(directory: Path) -> list[Path]:
    """The logs of a container's lives that are there, oldest first."""
    try:
        found = [(int(path.stem), path) for path in directory.glob("*.log") if path.stem.isdecimal()]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def current(log: Source, *, previous: bool) -> Path:
    """The file of the container's present (or last) life, or of the one before. Raises NotFound, InvalidRequest."""
    if log.file is not None:
        if previous:
            raise InvalidRequest("all lives of the container are in one file", subject=str(log.file))
        return log.file
    assert log.directory is not None
    found = lives(log.directory)
    if len(found) < 1 + previous:
        what = "no earlier life of the container has a log any more" if previous else "the container has no log yet"
        raise NotFound(what, subject=str(log.directory))
    return found[-1 - previous]


def lines(path: Path) -> Iterator[bytes]:
    """A file's lines without their newlines, the last one as far as it is there. Raises NodeFault."""
    with _open(path) as file:
        for line in file:
            yield line.rstrip(b"\n")


class Again(msgspec.Struct, frozen=True):
    """The container has been started again, and what follows is of its next life."""


def follow(log: Source, path: Path) -> Iterator[bytes | Again | None]:
    """As `lines`, and on as the file grows: into a new file of its name, into the container's next life, until its
    directory is gone. None when all that is there was given, before each wait. Raises NodeFault."""
    file = _open(path)
    rest = b""
    try:
        while True:
            while chunk := file.read(_CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            after = _next(log, path, file)
            if after is not None:
                # Once more: it may have grown between the last look and the move.
                if left := file.read():
                    *whole, rest = (rest + left).split(b"\n")
                    yield from whole
                if rest:
                    yield rest
                    rest = b""
                file.close()
                file = _open(after)
                if after != path:
                    yield Again()
                path = after
                continue
            yield None
            if not path.parent.exists():
                return
            time.sleep(_LOOK)
    finally:
        file.close()


def _next(log: Source, path: Path, file: IO[bytes]) -> Path | None:
    """Where to go on, None for here: a new file of the same name first, then the next life's."""
    try:
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return path
    except FileNotFoundError:
        pass  # moved, and the next line is to come
    later = lives(log.directory) if log.directory is not None else []
    if path in later:
        later = later[later.index(path) + 1 :]
    else:
        later = [each for each in later if int(each.stem) > int(path.stem)]
    return later[0] if later else None


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise NodeFault(f"the log cannot be read: {os.strerror(error.errno or 0)}", subject=str(path)) from error
