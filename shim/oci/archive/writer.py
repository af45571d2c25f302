"""An archive of one image with one layer: an OCI image layout (image-spec, image-layout.md) in a tar, with the file
beside it by which a Docker without containerd's image store finds the same blobs (moby, image/tarexport/load.go).

The same files, configuration and moment give the same bytes (with the same zlib). Nothing is held in memory but one
block of a file; on disk the layer is there twice while the archive is put together.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from shim.oci.archive import documents
from shim.oci.archive.compression import Compressor
from shim.oci.archive.documents import Config, Descriptor, Index, Manifest, Platform, Process, RootFs, Saved
from shim.oci.archive.packing import Item, write_layer


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An image to be written: `name` is a reference ("" for none), `moment` in seconds since 1970."""

    architecture: str
    process: Process
    entries: list[Item]
    name: str = ""
    annotations: Mapping[str, str] = {}
    moment: int = 0


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the manifest's digest, the layer's size in the archive and unpacked, in bytes."""

    digest: str
    compressed: int
    unpacked: int


class _Counted(io.RawIOBase):
    """A sink that hashes and counts what goes through."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink, self.hash, self.size = sink, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._sink.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"


def write(sink: BinaryIO, order: Order, scratch: Path) -> Written:
    """Write the archive; `scratch` is a directory with room for the layer. Raises ImageFault, OSError."""
    with tempfile.TemporaryFile(dir=scratch) as layer:
        stored = _Counted(layer)
        compressor = Compressor(stored)  # type: ignore[arg-type]
        whole = _Counted(compressor)  # type: ignore[arg-type]
        write_layer(whole, order.entries, order.moment)  # type: ignore[arg-type]
        compressor.close()
        layer.seek(0)
        created = datetime.datetime.fromtimestamp(order.moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = msgspec.json.encode(
            Config(
                created=created,
                architecture=order.architecture,
                os="linux",
                config=order.process,
                rootfs=RootFs(diff_ids=[whole.digest]),
            )
        )
        manifest = msgspec.json.encode(
            Manifest(
                schema_version=2,
                media_type=documents.MANIFEST,
                config=_descriptor(documents.CONFIG, config),
                layers=[Descriptor(media_type=documents.LAYER, digest=stored.digest, size=stored.size)],
                annotations=dict(sorted(order.annotations.items())) or None,
            )
        )
        described = msgspec.structs.replace(
            _descriptor(documents.MANIFEST, manifest),
            platform=Platform(architecture=order.architecture, os="linux"),
            annotations=_names(order.name) or None,
        )
        layout = msgspec.json.encode({"imageLayoutVersion": documents.LAYOUT_VERSION})
        # Not ustar: a layer may have 8 GiB and more.
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, "oci-layout", layout, order.moment)
            _add(tar, "index.json", msgspec.json.encode(Index(manifests=[described])), order.moment)
            saved = Saved(
                config=_place(_descriptor("", config).digest),
                repo_tags=[order.name] if _tag(order.name) else None,
                layers=[_place(stored.digest)],
            )
            _add(tar, "manifest.json", msgspec.json.encode([saved]), order.moment)
            for blob in (manifest, config):
                _add(tar, _place(_descriptor("", blob).digest), blob, order.moment)
            tar.addfile(_info(_place(stored.digest), stored.size, order.moment), layer)
    return Written(digest=described.digest, compressed=stored.size, unpacked=whole.size)


def _names(reference: str) -> dict[str, str]:
    """What an index says of an image's name: containerd takes the whole, those who know the specification a tag."""
    if not reference:
        return {}
    return {documents.IMAGE_NAME: reference, documents.REF_NAME: _tag(reference) or reference}


def _tag(reference: str) -> str:
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[2]


def _descriptor(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, data: bytes, moment: int) -> None:
    tar.addfile(_info(name, len(data), moment), io.BytesIO(data))


def _info(name: str, size: int, moment: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, moment, 0o644
    return info
