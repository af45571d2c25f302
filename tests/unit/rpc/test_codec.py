"""ttrpc's framing: bytes to frames and back, however they arrive."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.rpc.ttrpc_codec import LIMIT, Decoder, Flag, Frame, Type, encode

_frames = st.lists(
    st.builds(
        Frame,
        stream=st.integers(0, 2**32 - 1),
        type=st.integers(0, 255),
        payload=st.binary(max_size=300),
        flags=st.integers(0, 255),
    ),
    max_size=8,
)


def _oversize(stream: int, length: int) -> bytes:
    return struct.pack(">IIBB", length, stream, Type.REQUEST, 0)


def _feed(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder, frames = Decoder(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        frames += decoder.feed(data[start:end])
    return frames


def test_a_request_is_these_bytes() -> None:
    frame = Frame(stream=0x01020305, type=Type.REQUEST, payload=b"abc", flags=Flag.REMOTE_OPEN)
    assert encode(frame) == b"\0\0\0\x03" + b"\1\2\3\5" + b"\1" + b"\2" + b"abc"


@given(frames=_frames, cuts=st.lists(st.integers(0, 2500), max_size=12))
def test_frames_survive_any_cutting(frames: list[Frame], cuts: list[int]) -> None:
    assert _feed(b"".join(map(encode, frames)), cuts) == frames


@given(frame=st.builds(Frame, stream=st.integers(1, 9), type=st.just(int(Type.DATA)), payload=st.binary(max_size=40)))
def test_a_frame_survives_byte_by_byte(frame: Frame) -> None:
    data = encode(frame)
    assert _feed(data, list(range(len(data)))) == [frame]


@pytest.mark.parametrize("flags", [Flag.REMOTE_CLOSED, Flag.NO_DATA | Flag.REMOTE_CLOSED])
def test_data_frames_are_representable(flags: Flag) -> None:
    frame = Frame(stream=7, type=Type.DATA, flags=flags)
    assert Decoder().feed(encode(frame)) == [frame]


def test_nothing_is_reported_before_the_payload_is_complete() -> None:
    data, decoder = encode(Frame(1, Type.REQUEST, b"abc")), Decoder()
    assert decoder.feed(data[:-1]) == []
    assert decoder.feed(data[-1:]) == [Frame(1, Type.REQUEST, b"abc")]


def test_the_largest_payload_passes() -> None:
    frame = Frame(1, Type.RESPONSE, bytes(LIMIT))
    assert Decoder().feed(encode(frame)) == [frame]


def test_a_larger_payload_is_not_encoded() -> None:
    with pytest.raises(ValueError, match=f"{LIMIT + 1} bytes exceed"):
        encode(Frame(1, Type.RESPONSE, bytes(LIMIT + 1)))


@given(cuts=st.lists(st.integers(0, LIMIT + 60), max_size=5))
def test_an_oversize_payload_is_skipped_and_the_next_frame_read(cuts: list[int]) -> None:
    after = Frame(5, Type.REQUEST, b"next")
    data = encode(Frame(1, Type.REQUEST, b"a")) + _oversize(3, LIMIT + 1) + bytes(LIMIT + 1) + encode(after)
    before, skipped, following = _feed(data, cuts)
    assert (before.payload, following) == (b"a", after)
    assert (skipped.stream, skipped.oversize, skipped.payload) == (3, LIMIT + 1, b"")


def test_an_oversize_payload_is_not_kept() -> None:
    decoder = Decoder()
    assert [frame.oversize for frame in decoder.feed(_oversize(1, 2**32 - 1))] == [2**32 - 1]
    for _ in range(100):
        assert decoder.feed(bytes(1 << 16)) == []
    assert not decoder._buffer
