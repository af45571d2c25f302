"""Images in archives and layouts: which one is meant, what is verified, and what a hostile one may not do."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import ImageFault, InvalidRequest, NodeFault, ShimError
from shim.oci.archive import stored
from shim.oci.archive.documents import ARCHITECTURES
from shim.oci.archive.files import Archive, Directory, Files
from shim.oci.archive.tree import Tree
from tests.unit.oci.archive.making import Layout, saved, tar

ONE, TWO = tar([("a", b"1"), ("b", b"2")]), tar([(".wh.a", b""), ("c", b"3")])
HERE = ARCHITECTURES[os.uname().machine]
THERE = "arm64" if HERE == "amd64" else "amd64"


def opened(path: Path) -> Files:
    return Directory(path) if path.is_dir() else Archive(path.open("rb"), path.name)


def read(path: Path, **which: str) -> tuple[stored.Stored, Tree]:
    files = opened(path)
    try:
        image = stored.find(files, **which)
        return image, stored.layers_of(files, image)
    finally:
        files.close()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("outer", [bytes, gzip.compress, zstd.compress], ids=["tar", "tar.gz", "tar.zst"])
def test_layers_however_they_are_compressed(
    tmp_path: Path, compress: Callable[[bytes], bytes], outer: Callable[[bytes], bytes]
) -> None:
    layout = Layout()
    layout.image([ONE, TWO], {"Entrypoint": ["/k"]}, name="x:1", compress=compress)
    for path in (layout.archive(tmp_path / "a.tar", outer), layout.directory(tmp_path / "layout")):
        image, tree = read(path)
        assert image.name == "x:1" and image.config.config is not None and image.config.config.entrypoint == ["/k"]
        assert sorted(tree.top.children) == ["b", "c"] and len(image.layers) == 2


def test_what_docker_save_writes(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(saved([ONE, TWO], {"Cmd": ["/k"]}, tags=("x:1", "x:2")))
    image, tree = read(path)
    assert image.form == "docker save" and sorted(tree.top.children) == ["b", "c"]
    assert read(path, name="x:2")[0].name == "x:2"


def test_the_platform_of_this_node_unless_another_is_asked_for(tmp_path: Path) -> None:
    layout = Layout()
    layout.image([ONE], {"Cmd": ["there"]}, name="x:1", architecture=THERE)
    layout.image([TWO], {"Cmd": ["here"]}, name="x:1", architecture=HERE)
    # What buildx adds beside them is no image.
    layout.manifests.append({**layout.blob(b"{}"), "platform": {"architecture": "unknown", "os": "unknown"}})
    inner = layout.blob(
        json.dumps({"schemaVersion": 2, "manifests": layout.manifests}).encode(),
        annotations={"io.containerd.image.name": "example.com/x:1"},
    )
    layout.manifests = [{**inner, "mediaType": "application/vnd.oci.image.index.v1+json"}]
    path = layout.archive(tmp_path / "a.tar")

    def command(**which: str) -> list[str] | None:
        config = read(path, **which)[0].config.config
        assert config is not None
        return config.cmd

    assert command() == ["here"] and command(platform=f"linux/{THERE}") == ["there"]
    with pytest.raises(InvalidRequest, match=f"linux/s390x: no image is there.*{THERE}"):
        read(path, platform="linux/s390x")


def test_one_of_several_images(tmp_path: Path) -> None:
    layout = Layout()
    for name in ("x:1", "y:2"):
        layout.image([ONE], {"Cmd": [name]}, name=name, described=False)
    path = layout.archive(tmp_path / "a.tar")
    assert read(path, name="y:2")[0].name == "y:2" == read(path, name="2")[0].name
    with pytest.raises(InvalidRequest, match=r"more than one image.*--name.*x:1.*y:2"):
        read(path)
    with pytest.raises(InvalidRequest, match=r"z: no image of this name.*x:1"):
        read(path, name="z")


def test_a_digest_that_is_wrong(tmp_path: Path) -> None:
    layout = Layout()
    layout.image([ONE])
    blobs = [name for name in layout.files if name.startswith("blobs/")]
    for name in blobs:
        changed = dict(layout.files)
        layout.files = {**changed, name: changed[name][:-1] + bytes([changed[name][-1] ^ 1])}
        with pytest.raises(ImageFault) as raised:
            read(layout.archive(tmp_path / "a.tar"))
        assert "should be sha256:" in str(raised.value) or "broken tar" in str(raised.value)
        layout.files = changed


def test_a_layer_that_unpacks_to_something_else(tmp_path: Path) -> None:
    layout = Layout()
    layout.image([ONE], compress=lambda data: gzip.compress(TWO))
    with pytest.raises(ImageFault, match=r"\(unpacked\): the digest is"):
        read(layout.archive(tmp_path / "a.tar"))
    path = tmp_path / "saved.tar"
    path.write_bytes(saved([ONE], {}).replace(b"1" + bytes(511), b"2" + bytes(511)))
    with pytest.raises(ImageFault, match=r"\(unpacked\): the digest is"):
        read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"oci-layout": b'{"imageLayoutVersion": "2"}'}, "version '2'"),
        ({"oci-layout": b"{"}, "oci-layout: the document is not as it must be"),
        ({"index.json": b"[]"}, r"index\.json: the document"),
        ({"index.json": b'{"schemaVersion": 2, "manifests": []}'}, "no image in it"),
        ({"index.json": b"[" * 100_000}, r"index\.json: the document"),
        (
            {"index.json": b'{"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]}'},
            "no digest that an image can have",
        ),
        ({"index.json": b'{"manifests": [{"digest": "md5:00", "size": 1}]}'}, "no digest that an image can have"),
        (
            {"index.json": b'{"manifests": [{"digest": "sha256:' + b"0" * 64 + b'", "size": 1}]}'},
            "does not hold this file.*copy it again",
        ),
    ],
)
def test_documents_that_are_broken(tmp_path: Path, change: dict[str, bytes], match: str) -> None:
    layout = Layout()
    layout.image([ONE])
    path = tmp_path / "a.tar"
    path.write_bytes(tar(list({**layout.all(), **change}.items())))
    with pytest.raises(ImageFault, match=match):
        read(path)


def test_an_index_in_itself_and_too_many_layers(tmp_path: Path) -> None:
    layout = Layout()
    descriptor: dict[str, Any] = layout.image([ONE])
    for _ in range(8):
        inner = layout.blob(json.dumps({"manifests": [descriptor]}).encode())
        descriptor = {**inner, "mediaType": "application/vnd.oci.image.index.v1+json"}
    layout.manifests = [descriptor]
    with pytest.raises(ImageFault, match="more in it than images have"):
        read(layout.archive(tmp_path / "a.tar"))
    layout = Layout()
    layout.image([ONE] * 600, described=False)
    with pytest.raises(ImageFault, match="more layers than an image has"):
        read(layout.archive(tmp_path / "b.tar"))


def test_what_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar([("etc/passwd", b"root")]))
    with pytest.raises(ImageFault, match="neither an OCI layout"):
        read(path)
    path.write_bytes(lzma.compress(ONE))
    with pytest.raises(ImageFault, match="broken tar"):
        read(path)


def test_zstd_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    layout = Layout()
    layout.image([ONE], compress=zstd.compress)
    path = layout.archive(tmp_path / "a.tar")
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(NodeFault, match=r"blobs/sha256/[0-9a-f]+: it is compressed with zstd.*backports\.zstd"):
        read(path)


_LAYOUT = Layout()
_LAYOUT.image([ONE, TWO], {"Entrypoint": ["/k"], "Env": ["A=b"]}, name="x:1")
_GOOD = tar(list(_LAYOUT.all().items()))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_archives_with_bytes_changed_and_cut(data: st.DataObject) -> None:
    broken = bytearray(_GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken))))])
    try:
        files = Archive(io.BytesIO(cut), "x")
    except ShimError:
        return
    files.close()


@given(st.sampled_from(sorted(_LAYOUT.all())), st.data())
@settings(max_examples=150)
def test_documents_with_bytes_changed(name: str, data: st.DataObject) -> None:
    whole = dict(_LAYOUT.all())
    broken = bytearray(whole[name])
    broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    files = _Held({**whole, name: bytes(broken)})
    try:
        stored.layers_of(files, stored.find(files))
    except ShimError:
        return


class _Held:
    """Files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def holds(self, name: str) -> bool:
        return name in self._files

    def size(self, name: str) -> int:
        return len(self.open(name).read())

    def open(self, name: str) -> io.BytesIO:
        if name not in self._files:
            raise ImageFault("missing", subject=name)
        return io.BytesIO(self._files[name])

    def close(self) -> None:
        pass
