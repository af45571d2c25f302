"""What an image says of itself in /unikernel.json, and what it may not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ImageFault, InvalidRequest
from shim.oci import packed
from shim.oci.image import recognise
from tests.unit.oci import elf
from tests.unit.oci.asking import HERE, urunc_json

NAME = packed.PATH.lstrip("/")


def test_none_is_nothing(tmp_path: Path) -> None:
    assert packed.read(tmp_path) == {}


@given(st.dictionaries(st.text(st.characters(codec="utf-8")).map(lambda text: f"io.unikernel.{text}"), st.text()))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, annotations: dict[str, str]) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / NAME).write_bytes(packed.encode(annotations))
    assert packed.read(root) == annotations


def test_it_names_the_kernel_and_the_pod_wins(tmp_path: Path) -> None:
    for name in ("one.spt", "two.spt"):
        (tmp_path / name).write_bytes(elf.solo5(machine=HERE))
    (tmp_path / NAME).write_bytes(packed.encode({"io.unikernel.kernel": "/one.spt", "io.unikernel.memory": "64"}))
    image = recognise(tmp_path, (), {})
    assert image is not None and (image.path, image.memory) == (tmp_path / "one.spt", 64)
    image = recognise(tmp_path, (), {"io.unikernel.kernel": "/two.spt"})
    assert image is not None and (image.path, image.memory) == (tmp_path / "two.spt", 64)


def test_the_pod_wins_in_uruncs_words_too(tmp_path: Path) -> None:
    for name in ("one.spt", "two.spt"):
        (tmp_path / name).write_bytes(elf.solo5(machine=HERE))
    (tmp_path / NAME).write_bytes(packed.encode({"io.unikernel.kernel": "/one.spt", "io.unikernel.memory": "64"}))
    urunc_json(tmp_path, binary="/none", unikernelType="rumprun")
    image = recognise(tmp_path, (), {})
    # Where its own description is silent, urunc's holds.
    assert image is not None and (image.path, image.guest) == (tmp_path / "one.spt", "rumprun")
    two = base64.b64encode(b"/two.spt").decode()
    image = recognise(tmp_path, (), {"com.urunc.unikernel.binary": two})
    assert image is not None and (image.path, image.memory) == (tmp_path / "two.spt", 64)


@pytest.mark.parametrize("entry", ["/none", "redis-server"])
def test_a_kernel_that_it_names_and_does_not_have(tmp_path: Path, entry: str) -> None:
    (tmp_path / NAME).write_bytes(packed.encode({"io.unikernel.kernel": "/none"}))
    with pytest.raises(ImageFault, match="/none: there is no such kernel in the image"):
        recognise(tmp_path, (entry,), {})
    # One that the pod names is looked for in all its containers.
    assert recognise(tmp_path, ("redis-server",), {"io.unikernel.kernel": "/other"}) is None


def test_an_unknown_annotation_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(packed.encode({"io.unikernel.kernal": "/one.spt"}))
    with pytest.raises(InvalidRequest, match=r"io\.unikernel\.kernal: unknown annotation"):
        recognise(tmp_path, (), {})


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not as it must be"),
        (b"{", "not as it must be"),
        (b"\xff", "not as it must be"),
        (b"[]", "not as it must be"),
        (b"{}", "annotations"),
        (b'{"annotations": {"io.unikernel.kernel": 1}}', "not as it must be"),
        (b'{"annotations": {}, "annotation": {}}', "annotation"),
        (b'{"annotations": {"com.example": "x"}}', "com.example"),
        (b'{"annotations": {"io.unikernel.cmdline": "' + b"x" * (1 << 16) + b'"}}', "longer than 65536"),
        (b"[" * 60_000, "not as it must be"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(ImageFault, match=match) as raised:
        packed.read(tmp_path)
    assert raised.value.subject == packed.PATH


@pytest.mark.parametrize("target", ["../outside", "../../../../etc/hostname", "missing"])
def test_a_link_that_leads_out_or_nowhere(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(packed.encode({}))
    (root / NAME).symlink_to(target)
    with pytest.raises(ImageFault, match=r"leads out of the image|no such description"):
        packed.read(root)


def test_a_link_inside(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "description").write_bytes(packed.encode({"io.unikernel.kernel": "/k"}))
    (tmp_path / NAME).symlink_to("/etc/description")
    assert packed.read(tmp_path) == {"io.unikernel.kernel": "/k"}


def test_a_directory_is_no_description(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(ImageFault, match="not a regular file"):
        packed.read(tmp_path)
