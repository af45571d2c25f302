"""Archives made entry by entry, also such as no writer writes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shim.oci.archive import documents

#: What an entry of a layer can be here: a file's content, or its kind and where it leads.
Content = bytes | tuple[bytes, str]
FILE, DIRECTORY, LINK, HARD, FIFO, DEVICE = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
)


def tar(entries: Sequence[tuple[str, Content]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these entries, in this order, whatever their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI layout in the making: its files by their names."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
        """Add a blob; its descriptor."""
        self.files[f"blobs/{digest(data).replace(':', '/')}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def image(
        self,
        layers: Sequence[bytes],
        process: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        architecture: str = "amd64",
        annotations: Mapping[str, str] | None = None,
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0),
        described: bool = True,
    ) -> dict[str, Any]:
        """Add an image of these layers to the index; its descriptor."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(process or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": documents.MANIFEST,
            "config": self.blob(json.dumps(config).encode(), documents.CONFIG),
            "layers": [self.blob(compress(layer), documents.LAYER) for layer in layers],
            "annotations": dict(annotations or {}),
        }
        descriptor = self.blob(json.dumps(manifest).encode(), documents.MANIFEST)
        if described:
            descriptor["platform"] = {"architecture": architecture, "os": "linux"}
        if name:
            descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(descriptor)
        return descriptor

    def all(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.manifests}
        return {**self.files, "index.json": json.dumps(index).encode()}

    def archive(self, path: Path, compress: Callable[[bytes], bytes] = bytes) -> Path:
        """Write it as a tar."""
        path.write_bytes(compress(tar(list(self.all().items()))))
        return path

    def directory(self, path: Path) -> Path:
        """Write it as a directory."""
        for name, data in self.all().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def saved(layers: Sequence[bytes], process: Mapping[str, Any], tags: Sequence[str] = ("x:1",)) -> bytes:
    """What `docker save` wrote before it wrote OCI layouts, with a layer that two images share as a link."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(process),
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()
    name = f"{digest(config).removeprefix('sha256:')}.json"
    entries: list[tuple[str, Content]] = [(name, config)]
    places = []
    for number, layer in enumerate(layers):
        entries += [(f"real{number}/layer.tar", layer), (f"{number}/layer.tar", (LINK, f"../real{number}/layer.tar"))]
        places.append(f"{number}/layer.tar")
    entries.append(("manifest.json", json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": places}]).encode()))
    return tar(entries)
