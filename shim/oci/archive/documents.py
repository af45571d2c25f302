"""The JSON documents of an image: OCI image-spec (image-layout.md, image-index.md, manifest.md, config.md), and the
`manifest.json` that `docker save` writes (moby, image/tarexport)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from shim.errors import ImageFault

LAYOUT_VERSION = "1.0.0"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
#: What names further documents of the same kind; Docker's own type came first (distribution, manifestlist).
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
#: The annotations that name an image in an index: the specification's, which most take for a tag, and containerd's.
REF_NAME, IMAGE_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"

#: An architecture as uname(2) says it, and as images do (Go's GOARCH, by config.md).
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_Document = TypeVar("_Document")


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a manifest of an index is for."""

    architecture: str
    os: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A reference to a blob; `digest` is ALGORITHM:HEX, `size` in bytes."""

    media_type: str = ""
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The images of a layout, or one image for several platforms."""

    schema_version: int = 2
    media_type: str = INDEX
    manifests: list[Descriptor]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image for one platform."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Process(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """What an image's configuration says of its process."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    labels: dict[str, str] | None = None


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers' digests before compression, the lowest first."""

    type: str = "layers"
    diff_ids: list[str]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration; `created` is RFC 3339's."""

    created: str | None = None
    architecture: str
    os: str
    config: Process | None = None
    rootfs: RootFs


class Saved(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One image of an archive of `docker save`: paths in the archive."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str]


def decode(data: bytes, kind: type[_Document] | Any, name: str) -> _Document:
    """The document in `data`. Raises ImageFault, calling it `name`, where it is not one of this kind."""
    try:
        document: _Document = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImageFault(f"the document is not as it must be: {error}", subject=name) from error
    return document
