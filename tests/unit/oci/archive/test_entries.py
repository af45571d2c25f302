"""Tars as they come: broken, cut off, lying about sizes. Each is read or refused, none takes this process with it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ImageFault
from shim.oci.archive.compression import plain
from shim.oci.archive.entries import entries
from tests.unit.oci.archive.making import LINK, tar

GOOD = tar([("a", b"x" * 700), ("d/" + "n" * 200, b"y"), ("l", (LINK, "/a")), ("é", b"")])


def read(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    for entry, content in entries(plain(io.BytesIO(data), "x"), "x"):
        whole = b""
        while content is not None and (piece := content.read(100)):
            whole += piece
        found.append((entry.name, whole))
    return found


def test_all_of_it() -> None:
    assert [(name, len(data)) for name, data in read(GOOD)] == [("a", 700), ("d/" + "n" * 200, 1), ("l", 0), ("é", 0)]
    assert read(gzip.compress(GOOD)) == read(GOOD)


def test_the_watch_sees_every_byte() -> None:
    seen: list[bytes] = []
    data = GOOD + bytes(3000)
    for _ in entries(io.BytesIO(data), "x", seen.append):
        pass
    assert b"".join(seen) == data


def test_an_empty_tar() -> None:
    assert read(bytes(10240)) == []


@given(st.data())
def test_bytes_changed_and_cut(data: st.DataObject) -> None:
    broken = bytearray(GOOD)
    for _ in range(data.draw(st.integers(0, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(broken[: data.draw(st.integers(0, len(broken)))]))
    except ImageFault as error:
        assert "broken tar" in str(error)


@given(st.data())
def test_headers_changed_whose_checksum_is_right(data: st.DataObject) -> None:
    broken = bytearray(GOOD)
    at = 512 * data.draw(st.integers(0, len(GOOD) // 512 - 1))
    for _ in range(data.draw(st.integers(1, 12))):
        broken[at + data.draw(st.integers(100, 511))] = data.draw(st.integers(0, 255))
    broken[at + 148 : at + 156] = b" " * 8
    broken[at + 148 : at + 156] = b"%06o\0 " % sum(broken[at : at + 512])
    try:
        read(bytes(broken))
    except ImageFault as error:
        assert "broken tar" in str(error)


@given(st.binary(max_size=2000))
def test_what_is_no_tar(data: bytes) -> None:
    try:
        read(data)
    except ImageFault as error:
        assert "broken tar" in str(error)


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
@pytest.mark.parametrize("rest", [b"", b"\x08\x00" * 20, b"\xff" * 64])
def test_what_only_begins_as_if_it_were_compressed(magic: bytes, rest: bytes) -> None:
    with pytest.raises(ImageFault, match="broken tar"):
        read(magic + rest)


def header(kind: bytes, size: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    block[156:157], block[124:136] = kind, size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + bytes(3) + struct.pack(">Q", 1 << 62)])
def test_an_extended_header_as_long_as_a_disk(kind: bytes, size: bytes) -> None:
    with pytest.raises(ImageFault, match="a header of"):
        read(header(kind, size) + bytes(1 << 21))


@pytest.mark.parametrize("kind", [b"0", b"x", b"L"])
def test_a_size_below_nothing(kind: bytes) -> None:
    with pytest.raises(ImageFault, match="broken tar"):
        read(header(kind, b"\xff" * 12) + bytes(1024))


def test_headers_that_are_all_extended() -> None:
    record = b"20 path=" + b"x" * 11 + b"\n"
    one = header(b"x", b"%011o\0" % len(record)) + record.ljust(512, b"\0")
    with pytest.raises(ImageFault, match="broken tar"):
        read(one * 5000)


def test_a_header_that_is_none() -> None:
    with pytest.raises(ImageFault, match="no header at byte 1024"):
        read(tar([("a", b"x")])[:1024] + b"\x55" * 1024)


def extended(body: bytes) -> bytes:
    """A tar of one extended header (pax) and nothing else."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + bytes(1024)


def test_a_number_that_would_be_looked_for_in_it_for_minutes() -> None:
    with pytest.raises(ImageFault, match="a number of a hundred digits"):
        read(extended(b"1" * (1 << 20)))


def test_a_sparse_map_without_an_end() -> None:
    body = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=9999\n"
    member = tarfile.TarInfo("sparse")
    member.size = 64 << 20
    data = extended(body)[:-1024] + member.tobuf(tarfile.USTAR_FORMAT) + b"999999999999\n" + b"0\n" * (32 << 20)
    with pytest.raises(ImageFault, match="a header of"):
        read(data)
