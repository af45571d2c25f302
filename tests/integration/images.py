"""OCI images made here, without a registry: an archive `ctr images import` takes.

An archive is a tar of an OCI image layout (image-spec, image-layout.md): one layer, a config, a manifest, an index.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration import guest, paths

BUSYBOX = "localhost/busybox:test"
PAUSE = "localhost/pause:test"
LINUX = "localhost/linux:test"

#: Where the Linux image's parts are.
KERNEL_PATH = "/unikernel/vmlinuz"
INITRD_PATH = "/unikernel/initrd"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Static busybox's wget needs name-service files even for an address; its nc does not.
_FETCH = """#!/bin/sh
# fetch ADDRESS [PATH [PORT]]: GET over HTTP, print the body.
printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' "${2:-/}" "$1" | nc -w 5 "$1" "${3:-80}" > /tmp/answer.$$ || exit 1
sed '1,/^\\r*$/d' /tmp/answer.$$
head -n 1 /tmp/answer.$$ | grep -q ' 200 '; code=$?
rm /tmp/answer.$$
exit $code
"""


@dataclass(frozen=True)
class Symlink:
    """A symbolic link in an image."""

    target: str


@dataclass(frozen=True)
class Image:
    """An image to be built. `files` maps absolute paths to bytes (executable) or Symlinks."""

    reference: str
    files: Mapping[str, bytes | Symlink]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def archive(self, directory: Path) -> Path:
        """Write the archive into `directory`; its path."""
        path = directory / f"{hashlib.sha256(self.reference.encode()).hexdigest()[:12]}.tar"
        blobs: dict[str, bytes] = {}

        def blob(media_type: str, data: bytes) -> dict[str, Any]:
            digest = hashlib.sha256(data).hexdigest()
            blobs[f"blobs/sha256/{digest}"] = data
            return {
                "mediaType": f"application/vnd.oci.image.{media_type}",
                "digest": f"sha256:{digest}",
                "size": len(data),
            }

        layer = _tar(self.files)
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "Cmd": list(self.command),
                "Env": list(self.env),
                "User": self.user,
                "Labels": dict(self.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.v1+json", json.dumps(config).encode()),
            "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, compresslevel=0, mtime=0))],
            "annotations": dict(self.annotations),
        }
        described = blob("manifest.v1+json", json.dumps(manifest).encode())
        described["annotations"] = {
            # containerd's name for the image, and the specification's.
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference.rpartition(":")[2],
        }
        described["platform"] = {"architecture": architecture, "os": "linux"}
        index = {"schemaVersion": 2, "manifests": [described]}
        with tarfile.open(path, "w") as tar:
            _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            _add(tar, "index.json", json.dumps(index).encode())
            for name, data in blobs.items():
                _add(tar, name, data)
        return path


def _add(tar: tarfile.TarFile, name: str, data: bytes | Symlink | None) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o755
    if data is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif isinstance(data, Symlink):
        info.type, info.linkname = tarfile.SYMTYPE, data.target
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def _tar(files: Mapping[str, bytes | Symlink]) -> bytes:
    """A layer: the files with the directories above them."""
    out = io.BytesIO()
    names = {name.lstrip("/"): data for name, data in files.items()}
    directories = {str(parent) for name in names for parent in Path(name).parents if str(parent) != "."}
    with tarfile.open(fileobj=out, mode="w") as tar:
        for directory in sorted(directories - names.keys()):
            _add(tar, directory, None)
        for name, data in names.items():
            _add(tar, name, data)
    return out.getvalue()


def busybox() -> Image:
    """An ordinary container's image: a shell, `fetch`, and a server of /www on port 80 if it is run as it is."""
    applets = (
        "sh",
        "ip",
        "ping",
        "nc",
        "sed",
        "head",
        "grep",
        "rm",
        "cat",
        "sleep",
        "echo",
        "ls",
        "httpd",
        "arp",
        "id",
    )
    return Image(
        BUSYBOX,
        {
            "/bin/busybox": Path(paths.program("busybox")).read_bytes(),
            **{f"/bin/{applet}": Symlink("busybox") for applet in applets},
            "/bin/fetch": _FETCH.encode(),
            "/www/index.html": b"an ordinary pod\n",
            "/tmp/.keep": b"",
        },
        entrypoint=("/bin/httpd", "-f", "-p", "80", "-h", "/www"),
    )


def pause() -> Image:
    """The pod's own container, for containerd's `podsandbox` mode."""
    return Image(
        PAUSE,
        {"/bin/busybox": Path(paths.program("busybox")).read_bytes(), "/bin/sleep": Symlink("busybox")},
        entrypoint=("/bin/busybox", "sh", "-c", "trap exit TERM INT; while :; do sleep 3600 & wait; done"),
    )


def linux(reference: str = LINUX, *, arguments: Sequence[str] = (), more: Mapping[str, bytes] | None = None) -> Image:
    """The test guest as an image; how it is recognised is said by its annotations, given again to the pod."""
    return Image(
        reference,
        {KERNEL_PATH: guest.kernel().read_bytes(), INITRD_PATH: guest.initrd(), **(more or {})},
        entrypoint=(KERNEL_PATH,),
        command=tuple(arguments),
        annotations=LINUX_ANNOTATIONS,
        labels=LINUX_ANNOTATIONS,
    )


#: What a pod says of the Linux image. containerd shows a runtime no annotation of an image, only the pod's.
LINUX_ANNOTATIONS = {
    "io.unikernel.kernel": KERNEL_PATH,
    "io.unikernel.initrd": INITRD_PATH,
    "io.unikernel.guest": "linux",
    "io.unikernel.monitor": "qemu",
    "io.unikernel.cmdline": guest.WORDS,
}


def bad() -> dict[str, Image]:
    """Images that no monitor may be started for, by what is wrong with them."""
    kernel = guest.kernel().read_bytes()

    def image(name: str, files: Mapping[str, bytes | Symlink]) -> Image:
        return Image(f"localhost/bad-{name}:test", files, entrypoint=(KERNEL_PATH,))

    return {
        "no-kernel": image("no-kernel", {"/etc/motd": b"nothing to boot here\n"}),
        "empty-kernel": image("empty-kernel", {KERNEL_PATH: b""}),
        "wrong-machine": image("wrong-machine", {KERNEL_PATH: _elf(machine=0xF3)}),  # EM_RISCV (elf.h)
        "truncated": image("truncated", {KERNEL_PATH: _elf(machine=62, size=80)}),
        "text": image("text", {KERNEL_PATH: b"#!/bin/sh\necho not a kernel\n"}),
        "symlink-out": image("symlink-out", {KERNEL_PATH: Symlink("../../../../../../../../etc/hostname")}),
        "symlink-absolute": image("symlink-absolute", {KERNEL_PATH: Symlink("/proc/1/environ")}),
        "directory-link": image(
            "directory-link", {"/unikernel": Symlink("../../../../../../etc"), "/x": kernel[:4096]}
        ),
    }


def _elf(*, machine: int, size: int = 4096) -> bytes:
    """A 64-bit ELF executable's header with one program header (elf(5)), cut to `size` bytes."""
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    numbers = [(2, 2), (machine, 2), (1, 4), (0x100000, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (1, 2)]
    header = identity + b"".join(value.to_bytes(width, "little") for value, width in numbers) + bytes(6)
    program = [(1, 4), (5, 4), (0x1000, 8), (0x100000, 8), (0x100000, 8), (4096, 8), (4096, 8), (0x1000, 8)]
    header += b"".join(value.to_bytes(width, "little") for value, width in program)
    return header.ljust(8192, b"\x90")[:size]
