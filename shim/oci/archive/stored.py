"""An image in an archive or a layout: which one, its configuration, and its layers with their digests verified."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Generator
from typing import BinaryIO

import msgspec

from shim.errors import ImageFault, InvalidRequest
from shim.oci.archive import compression, documents
from shim.oci.archive.documents import ARCHITECTURES, Config, Descriptor, Index, Manifest, Platform, Saved
from shim.oci.archive.entries import Content, Entry, entries
from shim.oci.archive.files import Files, document
from shim.oci.archive.tree import Tree

# The registered algorithms (image-spec, descriptor.md); nothing else can be in a name below blobs/.
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
# An index that holds an index is what `docker buildx` writes; deeper ones nobody does.
_DEPTH, _MANIFESTS = 4, 256
_LAYERS = 512
_CHUNK = 1 << 20
_LAYOUT, _INDEX, _SAVED = "oci-layout", "index.json", "manifest.json"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: its file, the digest of that (none is known in `docker save`'s archives) and of what it unpacks to."""

    file: str
    digest: str | None
    diff: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One image for one platform. `form` is what holds it, `name` what it is called there ("" for nothing),
    `annotations` its manifest's, `digest` its manifest's ("" in `docker save`'s archives)."""

    form: str
    name: str
    digest: str
    platform: Platform
    config: Config
    annotations: dict[str, str]
    layers: tuple[Layer, ...]


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An image that might be meant; `read` reads the rest of it."""

    name: str
    key: str
    platform: Platform
    read: Callable[[], Stored]


def is_layout(files: Files) -> bool:
    """Whether files are those of an OCI layout or of `docker save`."""
    if files.holds(_LAYOUT):
        return True
    try:
        return files.holds(_SAVED) and bool(documents.decode(document(files, _SAVED), list[Saved], _SAVED))
    except ImageFault:
        return False  # a file of that name in a root directory


def find(files: Files, *, name: str = "", platform: str = "") -> Stored:
    """The image called `name` for `platform` (os/architecture[/variant]), each of which may be left out where only one
    image is there; without a platform this node's is preferred.

    Raises ImageFault where the documents are broken or a digest is wrong, InvalidRequest where nothing or more than one
    image is meant, with what there is.
    """
    if files.holds(_INDEX):
        candidates = _in_layout(files)
    elif files.holds(_SAVED):
        candidates = _in_saved(files)
    else:
        raise ImageFault(
            "neither an OCI layout (index.json) nor what docker save writes (manifest.json)",
            remedy="ctr images export, skopeo copy and docker save write one",
        )
    return _choose(candidates, name, platform).read()


def layers_of(files: Files, image: Stored) -> Tree:
    """The files of all layers; every digest is verified meanwhile. Raises ImageFault."""
    tree = Tree()
    for number, layer in enumerate(image.layers):
        stored, whole = _hash(layer.digest or "sha256:"), _hash(layer.diff)
        with files.open(layer.file) as raw:
            tree.apply(number, (entry for entry, _ in _entries(raw, layer, watch=whole.update)))
            raw.seek(0)
            if layer.digest is not None:
                while piece := raw.read(_CHUNK):
                    stored.update(piece)
                _compare(stored, layer.digest, layer.file)
        _compare(whole, layer.diff, f"{layer.file} (unpacked)")
    return tree


def contents_of(files: Files, image: Stored, number: int) -> Generator[tuple[Entry, Content | None], None, None]:
    """The entries of a layer with what is in them; the layer was verified already."""
    layer = image.layers[number]
    with files.open(layer.file) as raw:
        yield from _entries(raw, layer)


def _entries(
    raw: BinaryIO, layer: Layer, watch: Callable[[bytes], object] | None = None
) -> Generator[tuple[Entry, Content | None], None, None]:
    return entries(compression.plain(raw, layer.file), layer.file, watch)


def _choose(candidates: list[_Candidate], name: str, platform: str) -> _Candidate:
    there = ", ".join(sorted({f"{each.name or 'one without a name'} ({each.platform})" for each in candidates}))
    if not candidates:
        raise ImageFault("there is no image in it")
    found = [each for each in candidates if not name or name in (each.name, _tag(each.name))]
    if not found:
        raise InvalidRequest("no image of this name is there", subject=name, remedy=f"there are {there}")
    if platform:
        found = [each for each in found if _matches(platform, each.platform)]
        if not found:
            raise InvalidRequest("no image is there for this platform", subject=platform, remedy=f"there are {there}")
    elif len({str(each.platform) for each in found}) > 1:
        machine = os.uname().machine
        here = f"linux/{ARCHITECTURES.get(machine, machine)}"
        found = [each for each in found if _matches(here, each.platform)] or found
    if len({each.key for each in found}) > 1:
        raise InvalidRequest("more than one image is there", remedy=f"choose with --name or --platform: {there}")
    return found[0]


def _tag(name: str) -> str:
    return name.rpartition(":")[2]


def _matches(wanted: str, platform: Platform) -> bool:
    return str(platform) == wanted or f"{platform.os}/{platform.architecture}" == wanted


def _in_layout(files: Files) -> list[_Candidate]:
    if files.holds(_LAYOUT):
        layout: dict[str, object] = documents.decode(document(files, _LAYOUT), dict[str, object], _LAYOUT)
        if layout.get("imageLayoutVersion") != documents.LAYOUT_VERSION:
            raise ImageFault(f"a layout of version {layout.get('imageLayoutVersion')!r}", subject=_LAYOUT)
    index: Index = documents.decode(document(files, _INDEX), Index, _INDEX)
    return _manifests(files, index, "", 1)


def _manifests(files: Files, index: Index, name: str, depth: int) -> list[_Candidate]:
    found: list[_Candidate] = []
    if len(index.manifests) > _MANIFESTS or depth > _DEPTH:
        raise ImageFault("an index with more in it than images have", subject=name or _INDEX)
    for descriptor in index.manifests:
        annotations = descriptor.annotations or {}
        own = annotations.get(documents.IMAGE_NAME) or annotations.get(documents.REF_NAME) or name
        if descriptor.media_type in documents.INDEXES:
            inner: Index = documents.decode(_blob(files, descriptor), Index, descriptor.digest)
            found += _manifests(files, inner, own, depth + 1)
        elif descriptor.platform is None or descriptor.platform.os != "unknown":  # what buildx calls attestations
            found.append(_in_manifest(files, descriptor, own))
        if len(found) > _MANIFESTS:
            raise ImageFault("an index with more in it than images have", subject=name or _INDEX)
    return found


def _in_manifest(files: Files, descriptor: Descriptor, name: str) -> _Candidate:
    def read() -> Stored:
        manifest: Manifest = documents.decode(_blob(files, descriptor), Manifest, descriptor.digest)
        config: Config = documents.decode(_blob(files, manifest.config), Config, manifest.config.digest)
        return _stored(
            "an OCI image layout",
            name,
            config,
            tuple((_place(layer), layer.digest) for layer in manifest.layers),
            manifest.annotations or {},
            descriptor.digest,
        )

    platform = descriptor.platform or read().platform
    return _Candidate(name=name, key=descriptor.digest, platform=platform, read=read)


def _in_saved(files: Files) -> list[_Candidate]:
    found: list[_Candidate] = []
    saved: list[Saved] = documents.decode(document(files, _SAVED), list[Saved], _SAVED)
    for image in saved[:_MANIFESTS]:
        config: Config = documents.decode(document(files, image.config), Config, image.config)
        for name in image.repo_tags or [""]:
            stored = _stored("docker save", name, config, tuple((layer, None) for layer in image.layers), {}, "")
            found.append(
                _Candidate(name=name, key=image.config, platform=stored.platform, read=functools.partial(_same, stored))
            )
    return found


def _same(stored: Stored) -> Stored:
    return stored


def _stored(
    form: str,
    name: str,
    config: Config,
    layers: tuple[tuple[str, str | None], ...],
    annotations: dict[str, str],
    digest: str,
) -> Stored:
    diffs = config.rootfs.diff_ids
    if len(diffs) != len(layers):
        raise ImageFault(
            f"the configuration speaks of {len(diffs)} layers, the manifest of {len(layers)}", subject=name
        )
    if len(layers) > _LAYERS:
        raise ImageFault(f"more layers than an image has ({len(layers)})", subject=name)
    return Stored(
        form=form,
        name=name,
        digest=digest,
        platform=Platform(architecture=config.architecture, os=config.os),
        config=config,
        annotations=annotations,
        layers=tuple(
            Layer(file=file, digest=stored, diff=_checked(diff))
            for (file, stored), diff in zip(layers, diffs, strict=True)
        ),
    )


def _blob(files: Files, descriptor: Descriptor) -> bytes:
    place = _place(descriptor)
    data = document(files, place)
    found = _hash(descriptor.digest)
    found.update(data)
    _compare(found, descriptor.digest, place)
    return data


def _place(descriptor: Descriptor) -> str:
    return f"blobs/{_checked(descriptor.digest).replace(':', '/')}"


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ImageFault("no digest that an image can have", subject=repr(digest[:140]))
    return digest


def _hash(digest: str) -> hashlib._Hash:
    return hashlib.new(digest.partition(":")[0])


def _compare(found: hashlib._Hash, digest: str, file: str) -> None:
    if found.hexdigest() != digest.partition(":")[2]:
        raise ImageFault(
            f"the digest is {found.name}:{found.hexdigest()} and should be {digest}",
            subject=file,
            remedy="the image is damaged: copy it again",
        )
