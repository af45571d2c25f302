"""`unikernel-shim image inspect`: any image, wherever it is, and how it would be run."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from shim.cli.image_words import check_text, pair
from shim.config import Config
from shim.errors import ImageFault, InvalidRequest, NotFound, ShimError, Unsupported
from shim.monitors.registry import monitors
from shim.oci import bundle, packed, rewrite, urunc
from shim.oci.archive import stored
from shim.oci.archive.documents import Process
from shim.oci.archive.files import Archive, Directory, Files, spooled
from shim.oci.archive.stored import Stored
from shim.oci.archive.unpack import unpack
from shim.oci.image import wishes_of
from shim.process.spawn import Completed
from shim.sandbox.explain import PAUSE, Explanation, Question, explain

_STDIN = "-"
#: Files by which an image says what it is.
_DESCRIPTIONS = (packed.PATH, urunc.FILE)
_WIDE = 40  # a longer value pushes its own reason only


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The options, as they were given."""

    source: str
    annotations: tuple[str, ...] = ()
    platform: str = ""
    name: str = ""
    arguments: tuple[str, ...] = ()


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of the image beside how it would be run."""

    form: str
    explanation: Explanation
    about: Mapping[str, Any] = {}


def run(request: Request, config: Config, *, as_json: bool) -> tuple[str, str]:
    """The report as text or as JSON, and the verdict.

    Raises ImageFault where the image cannot be read, NotFound where it is not there, InvalidRequest where the request
    makes no sense.
    """
    check_text((*request.annotations, *request.arguments))
    annotations = dict(pair(word, "--annotation") for word in request.annotations)
    try:
        report = _inspect(request, config, annotations)
    except OSError as error:
        raise ImageFault(f"the image cannot be read: {error.strerror}", subject=request.source) from error
    return _as_object(report) if as_json else _as_text(report), report.explanation.verdict


def archive(file: BinaryIO, config: Config) -> Explanation:
    """How a pod would run the image of an archive that is open; raises as `run`."""
    with contextlib.closing(Archive(file, "the archive")) as files:
        return _of_files(Request(source=""), config, {}, files).explanation


def _inspect(request: Request, config: Config, annotations: Mapping[str, str]) -> _Report:
    if request.source != _STDIN:
        path = Path(request.source)
        if path.is_dir():
            return _of_directory(request, config, annotations, path)
        if not path.exists():
            raise NotFound("there is no such file or directory", subject=request.source)
    file = spooled(sys.stdin.buffer, _STDIN) if request.source == _STDIN else _open(Path(request.source))
    with contextlib.closing(Archive(file, request.source)) as files:
        return _of_files(request, config, annotations, files)


def _open(path: Path) -> BinaryIO:
    if path.is_file():
        return path.open("rb")
    # A FIFO, as a shell makes one for <(…).
    with path.open("rb") as stream:
        return spooled(stream, os.fspath(path))


def _of_directory(request: Request, config: Config, annotations: Mapping[str, str], path: Path) -> _Report:
    files = Directory(path)
    if stored.is_layout(files):
        return _of_files(request, config, annotations, files)
    if request.name or request.platform:
        raise InvalidRequest("only archives and layouts hold images by name and platform", subject=request.source)
    if (path / "config.json").is_file():
        spec = bundle.read_spec(path)
        if rewrite.is_sandbox(spec):
            return _Report(form="a bundle", explanation=PAUSE)
        arguments = request.arguments or tuple(spec["process"].get("args") or ())
        asked = _question(
            config,
            arguments,
            rewrite.environment(spec),
            {**rewrite.annotations_of(spec), **annotations},
        )
        return _Report(form="a bundle", explanation=explain(bundle.root_of(path, spec), asked))
    return _Report(
        form="a root directory", explanation=explain(path, _question(config, request.arguments, {}, annotations))
    )


def _of_files(request: Request, config: Config, annotations: Mapping[str, str], files: Files) -> _Report:
    image = stored.find(files, name=request.name, platform=request.platform)
    tree = stored.layers_of(files, image)
    count, size = tree.size()
    process = image.config.config or Process()
    entry = tuple(process.entrypoint or ())
    arguments = entry + (request.arguments or tuple(process.cmd or ()))
    asked = msgspec.structs.replace(
        _question(config, arguments, _environment(process.env or ()), annotations),
        unheard={"manifest": image.annotations, "configuration (labels)": process.labels or {}},
        files=count,
    )
    with tempfile.TemporaryDirectory(prefix="unikernel-image-") as name:
        root = Path(name)

        def fetch(names: Iterable[str]) -> None:
            unpack(tree, names, root, lambda number: stored.contents_of(files, image, number))

        fetch((*_DESCRIPTIONS, *arguments[:1]))
        fetch(_named(root, annotations))
        explanation = explain(root, asked)
    return _Report(form=image.form, explanation=explanation, about=_about(image, count, size))


def _question(
    config: Config, arguments: tuple[str, ...], environment: Mapping[str, str], annotations: Mapping[str, str]
) -> Question:
    return Question(
        monitors=monitors(config.monitors, _start_nothing, Path("/nonexistent")),
        arguments=arguments,
        environment=environment,
        annotations=annotations,
        memory=config.guest.memory,
    )


async def _start_nothing(argv: Sequence[str], *, timeout: float) -> Completed:
    raise Unsupported("an image is looked at without its monitor", subject=argv[0])


def _environment(words: Iterable[str]) -> dict[str, str]:
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}


def _named(root: Path, annotations: Mapping[str, str]) -> Iterator[str]:
    """The files that the pod or the image's descriptions, which are there already, name."""
    try:
        wanted = wishes_of(root, annotations)
    except ShimError:  # said again, by whoever explains
        return
    yield from filter(None, (wanted.kernel, wanted.initrd))
    yield from (wish.path for wish in wanted.blocks if not wish.of_pod)


def _about(image: Stored, count: int, size: int) -> dict[str, Any]:
    return {
        "form": image.form,
        "name": image.name,
        "digest": image.digest,
        "platform": str(image.platform),
        "layers": len(image.layers),
        "files": count,
        "bytes": size,
    }


def _as_object(report: _Report) -> str:
    found = {"form": report.form, **report.about, **msgspec.to_builtins(report.explanation)}
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def _as_text(report: _Report) -> str:
    about, explanation = report.about, report.explanation
    lines = [report.form]
    if about:
        lines = [
            f"{about['name'] or 'an image without a name'}, {about['platform']}, in {report.form}",
            f"  {about['layers']} layer{'s' * (about['layers'] != 1)}, {about['files']} files, {about['bytes']} bytes",
        ]
        if about["digest"]:
            lines.append(f"  {about['digest']}")
    lines.append(
        {"unikernel": "runs as a unikernel", "ordinary": "runs as an ordinary container", "refused": "is refused"}[
            explanation.verdict
        ]
    )
    if explanation.refusal is not None:
        lines.append(f"  {explanation.refusal.code}: {explanation.refusal.message}")
    widths = [max((len(text) for text in column), default=0) for column in _columns(explanation)]
    for name, fact in explanation.facts.items():
        lines.append(f"  {name:<{widths[0]}}  {fact.value:<{min(widths[1], _WIDE)}}  {fact.why}")
    lines += [f"note: {note}" for note in explanation.notes]
    return "".join(f"{_printable(line)}\n" for line in lines)


def _printable(line: str) -> str:
    """The line without what would speak to a terminal, or could not be written to one: an image says what it likes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in line
    )


def _columns(explanation: Explanation) -> tuple[list[str], list[str]]:
    return list(explanation.facts), [fact.value for fact in explanation.facts.values()]
