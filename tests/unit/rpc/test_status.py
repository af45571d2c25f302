"""Errors to codes and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from structlog.testing import LogCapture

from shim import errors
from shim.errors import Code, ShimError
from shim.rpc import status


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogCapture]:
    captured = LogCapture()
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[captured])
    monkeypatch.setattr(status, "_log", logger)
    yield captured


_CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ShimError)]


@pytest.mark.parametrize("kind", _CLASSES, ids=lambda kind: kind.__name__)
def test_our_errors_have_their_own_code_and_text(kind: type[ShimError], lines: LogCapture) -> None:
    error = kind("does not work", subject="c1", remedy="mend it")
    assert status.outward(error, "Task/Create") == (kind.code, "c1: does not work; mend it")
    assert [(line["event"], line["method"]) for line in lines.entries] == [("refused", "Task/Create")]


@pytest.mark.parametrize("kind", [kind for kind in _CLASSES if kind is not ShimError], ids=lambda kind: kind.__name__)
def test_whose_fault_it_is_comes_back_over_grpc(kind: type[ShimError]) -> None:
    told = dict(status.trailer(kind("does not work")))
    back = status.inward(kind.code, "does not work", told[status.FAULT])
    assert (back.code, back.fault, str(back)) == (kind.code, kind.fault, "does not work")
    assert status.trailer(KeyError("pod")) == ()


def test_a_timeout_is_a_deadline_passed(lines: LogCapture) -> None:
    code, text = status.outward(TimeoutError("internal detail"), "Task/Create")
    assert code is Code.DEADLINE_EXCEEDED
    assert "deadline" in text


def test_what_cannot_be_decoded_is_an_invalid_argument(lines: LogCapture) -> None:
    with pytest.raises(DecodeError) as caught:
        Empty.FromString(b"\xff")
    assert status.outward(caught.value, "Task/Create")[0] is Code.INVALID_ARGUMENT


def test_the_unexpected_is_logged_once_with_its_trace_and_told_without(lines: LogCapture) -> None:
    error = KeyError("pod\nTraceback (most recent call last): secret")
    code, text = status.outward(RuntimeError("pod\nTraceback (most recent call last): secret"), "Task/Create")
    assert (code, text) == (Code.INTERNAL, "unexpected RuntimeError: pod")
    assert status.outward(error, "Task/Create")[0] is Code.INTERNAL
    assert status.outward(ValueError(), "Task/Create") == (Code.INTERNAL, "unexpected ValueError")
    assert len(lines.entries) == 3
    assert lines.entries[1]["exc_info"] is error


@pytest.mark.parametrize("letter", ["x", "ä", "\N{SNOWMAN}", "\U0001f600", "\udcff"])
def test_a_text_is_cut_to_what_a_trailer_can_carry(letter: str, lines: LogCapture) -> None:
    _, text = status.outward(errors.NodeFault(letter * 10000), "Task/Create")
    assert 2040 < len(text.encode()) <= 2048


def test_cancellation_is_no_answer() -> None:
    assert not issubclass(asyncio.CancelledError, Exception)  # so `except Exception` lets it through


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_a_peers_code_becomes_the_error_with_that_code(code: Code) -> None:
    error = status.inward(code, "told so")
    assert str(error) == "told so"
    assert error.code in (code, Code.UNKNOWN)


def test_the_codes_that_matter_have_classes_of_their_own() -> None:
    pairs = {
        Code.INVALID_ARGUMENT: errors.InvalidRequest,
        Code.NOT_FOUND: errors.NotFound,
        Code.ALREADY_EXISTS: errors.AlreadyExists,
        Code.FAILED_PRECONDITION: errors.WrongState,
        Code.UNIMPLEMENTED: errors.Unsupported,
        Code.UNAVAILABLE: errors.Unreachable,
        Code.RESOURCE_EXHAUSTED: errors.Exhausted,
        Code.DEADLINE_EXCEEDED: errors.TimedOut,
        Code.INTERNAL: errors.Bug,
        Code.UNKNOWN: errors.Unexpected,
    }
    assert {code: type(status.inward(code, "")) for code in pairs} == pairs


def test_a_code_nobody_knows_is_unexpected() -> None:
    assert type(status.inward(999, "?")) is errors.Unexpected
