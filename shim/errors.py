"""The one error model of the shim.

Every failure that a caller can meet is a `ShimError`. It carries what a status on the wire needs (a code), what a
human needs (one sentence that says what happened, and one that says what to do), and what a program needs (the
object it is about, and whose fault it is).

    ShimError
    ├── InvalidRequest      INVALID_ARGUMENT     the caller's: a field or annotation makes no sense
    ├── NotFound            NOT_FOUND            the caller's: no such sandbox, container or process
    ├── AlreadyExists       ALREADY_EXISTS       the caller's: that id is taken
    ├── WrongState          FAILED_PRECONDITION  the caller's: not in this state of its life
    ├── Unsupported         UNIMPLEMENTED        the caller's: a unikernel cannot do that, and why
    ├── ImageFault          INVALID_ARGUMENT     the image's: no kernel in it, a broken one, one for another machine
    ├── NodeFault           FAILED_PRECONDITION  the node's: a missing monitor, engine, device or permission
    ├── NetworkFault        FAILED_PRECONDITION  the node's: the pod's network cannot be handed to a guest
    ├── Unreachable         UNAVAILABLE          the node's: a peer (containerd, a monitor's socket) does not answer
    ├── Exhausted           RESOURCE_EXHAUSTED   the node's: a bound of ours was met
    ├── TimedOut            DEADLINE_EXCEEDED    the caller's deadline, or ours, passed
    ├── Unexpected          UNKNOWN              what containerd's runc shim answers with a bare error
    └── Bug                 INTERNAL             ours: something that should not be possible
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Code(enum.IntEnum):
    """Status codes shared by gRPC and ttrpc (google.rpc.Code, google/rpc/code.proto)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Fault(enum.StrEnum):
    """Whose fault an error is; decides the log level and where an operator looks first."""

    USER = "user"
    IMAGE = "image"
    NODE = "node"
    OURS = "ours"


class ShimError(Exception):
    """The root of every error the shim raises on purpose.

    `message` says what happened, `subject` names the object it is about (a path, an id, an annotation's key) and is
    part of the text, `remedy` says what to do about it and may be empty where the message already does.
    """

    code: ClassVar[Code] = Code.UNKNOWN
    fault: ClassVar[Fault] = Fault.OURS

    def __init__(self, message: str, *, subject: str = "", remedy: str = "") -> None:
        self.message = message
        self.subject = subject
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.subject}: {self.message}" if self.subject else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class InvalidRequest(ShimError):
    """A field, flag or annotation of the request makes no sense."""

    code = Code.INVALID_ARGUMENT
    fault = Fault.USER


class NotFound(ShimError):
    """There is no such sandbox, container or process."""

    code = Code.NOT_FOUND
    fault = Fault.USER


class AlreadyExists(ShimError):
    """The id is taken."""

    code = Code.ALREADY_EXISTS
    fault = Fault.USER


class WrongState(ShimError):
    """The object exists, but not in a state in which this call is allowed."""

    code = Code.FAILED_PRECONDITION
    fault = Fault.USER


class Unsupported(ShimError):
    """The call is known and will never work for this kind of container; the message says why."""

    code = Code.UNIMPLEMENTED
    fault = Fault.USER


class ImageFault(ShimError):
    """The image does not hold what it says, or nothing this node can run."""

    code = Code.INVALID_ARGUMENT
    fault = Fault.IMAGE


class NodeFault(ShimError):
    """The node lacks something: a program, a device, a kernel feature, a permission."""

    code = Code.FAILED_PRECONDITION
    fault = Fault.NODE


class NetworkFault(ShimError):
    """The pod's network cannot be handed to a guest as it stands."""

    code = Code.FAILED_PRECONDITION
    fault = Fault.NODE


class Unreachable(ShimError):
    """A peer that should answer does not."""

    code = Code.UNAVAILABLE
    fault = Fault.NODE


class Exhausted(ShimError):
    """One of our own bounds was met (a message too large, too many at once)."""

    code = Code.RESOURCE_EXHAUSTED
    fault = Fault.NODE


class TimedOut(ShimError):
    """A deadline passed."""

    code = Code.DEADLINE_EXCEEDED
    fault = Fault.NODE


class Unexpected(ShimError):
    """What containerd's own runc shim answers with a bare error, so UNKNOWN on the wire."""

    code = Code.UNKNOWN
    fault = Fault.USER


class Bug(ShimError):
    """Something that should not be possible."""

    code = Code.INTERNAL
    fault = Fault.OURS
