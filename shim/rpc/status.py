"""Errors to status codes and back: the one place where either is decided."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from shim import errors, log
from shim.errors import Code, Fault, ShimError

_log = log.get(__name__)

# Bytes of an error's text. It travels in an HTTP/2 trailer, percent-encoded to at most three times that, and gRPC
# refuses trailers over 8 KiB (GRPC_ARG_MAX_METADATA_SIZE's default).
_TEXT_LIMIT = 2048

_BY_CODE: dict[Code, type[ShimError]] = {
    Code.INVALID_ARGUMENT: errors.InvalidRequest,
    Code.NOT_FOUND: errors.NotFound,
    Code.ALREADY_EXISTS: errors.AlreadyExists,
    Code.FAILED_PRECONDITION: errors.WrongState,
    Code.UNIMPLEMENTED: errors.Unsupported,
    Code.UNAVAILABLE: errors.Unreachable,
    Code.RESOURCE_EXHAUSTED: errors.Exhausted,
    Code.DEADLINE_EXCEEDED: errors.TimedOut,
    Code.INTERNAL: errors.Bug,
}
# What two kinds of error share a code for, whose fault it is tells apart.
_BY_FAULT: dict[tuple[Code, str], type[ShimError]] = {
    (Code.FAILED_PRECONDITION, Fault.NODE): errors.NodeFault,
    (Code.INVALID_ARGUMENT, Fault.IMAGE): errors.ImageFault,
}
#: The key under which gRPC's trailing metadata says whose fault it is, in the words of `Fault`.
FAULT = "io-unikernel-fault"


def code_of(error: BaseException | None) -> Code:
    """The code that a caller is told of how its call ended; one that went away would have been told CANCELLED."""
    match error:
        case None:
            return Code.OK
        case ShimError():
            return error.code
        case TimeoutError():
            return Code.DEADLINE_EXCEEDED
        case DecodeError():
            return Code.INVALID_ARGUMENT
        case asyncio.CancelledError():
            return Code.CANCELLED
        case _:
            return Code.INTERNAL


def outward(error: Exception, method: str) -> tuple[Code, str]:
    """Code and text that a caller of `method` is told.

    A user's mistake is one log line; what we did not raise on purpose is logged with its trace, which the caller does
    not see: it gets the first line. Texts are cut at 2 KiB.
    """
    text = _told(error, method)
    return code_of(error), text.encode(errors="replace")[:_TEXT_LIMIT].decode(errors="ignore")


def trailer(error: Exception) -> tuple[tuple[str, str], ...]:
    """Metadata that a caller over gRPC is told with it: an exit code follows from whose fault it is."""
    return ((FAULT, error.fault.value),) if isinstance(error, ShimError) else ()


def _told(error: Exception, method: str) -> str:
    if isinstance(error, ShimError):
        _log.info("refused", method=method, code=error.code.name, fault=error.fault.value, error=str(error))
        return str(error)
    if isinstance(error, TimeoutError):
        _log.warning("deadline passed", method=method)
        return "the deadline passed before the call was done"
    if isinstance(error, DecodeError):
        return f"the request of {method} cannot be decoded"
    _log.error("unexpected", method=method, exc_info=error)
    first = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}" + (f": {first}" if first else "")


def inward(code: int, text: str, fault: str = "") -> ShimError:
    """The error for a peer's status: the class for its code, and for whose fault it is where the peer says that,
    Unexpected for codes that have none."""
    try:
        known = Code(code)
    except ValueError:
        known = Code.UNKNOWN
    return (_BY_FAULT.get((known, fault)) or _BY_CODE.get(known, errors.Unexpected))(text)
