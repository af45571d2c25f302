"""The life of a process in a container, and which call is allowed when.

    created ──start──▶ running ◀──resume── paused
       │                  │ ──pause──▶        │
       └──── exit ────────┴────── exit ───────┘
                          ▼
                       stopped ──delete──▶ deleted

The refusals, word and code, are those of containerd's runc shim, as clients rely on them: a bare error (UNKNOWN) for
a call in the wrong state, NOT_FOUND for a signal to the dead.
"""

from __future__ import annotations

import enum

from shim.errors import Unexpected


class Status(enum.StrEnum):
    """Where in its life a process is."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Call(enum.StrEnum):
    """The calls that depend on it."""

    START = "start"
    DELETE = "delete"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"
    EXEC = "exec"
    RESIZE = "resize"


_LIVING = (Status.CREATED, Status.RUNNING, Status.PAUSED)

_ALLOWED: dict[Call, tuple[Status, ...]] = {
    Call.START: (Status.CREATED,),
    Call.DELETE: (Status.CREATED, Status.STOPPED),
    Call.PAUSE: (Status.RUNNING,),
    Call.RESUME: (Status.PAUSED,),
    Call.UPDATE: _LIVING,
    Call.EXEC: (Status.CREATED, Status.RUNNING),
    Call.RESIZE: _LIVING,
}

_OBJECT: dict[Call, str] = {
    Call.START: "process",
    Call.DELETE: "process",
    Call.PAUSE: "container",
    Call.RESUME: "container",
    Call.UPDATE: "container",
    Call.EXEC: "state",
    Call.RESIZE: "container",
}

_NEXT: dict[Status, tuple[Status, ...]] = {
    Status.CREATED: (Status.RUNNING, Status.STOPPED),
    Status.RUNNING: (Status.PAUSED, Status.STOPPED),
    Status.PAUSED: (Status.RUNNING, Status.STOPPED),
    Status.STOPPED: (Status.DELETED,),
    Status.DELETED: (),
}


def require(status: Status, call: Call, subject: str) -> None:
    """Raise Unexpected unless `call` is allowed in `status`."""
    if status in _ALLOWED[call]:
        return
    preposition = "in" if call is Call.EXEC else ""
    article = "an" if status[0] in "aeiou" else "a"
    words = ["cannot", call.value, preposition, article, status.value, _OBJECT[call]]
    raise Unexpected(" ".join(word for word in words if word), subject=subject)


def may_become(status: Status, following: Status) -> bool:
    """Whether the picture above has an arrow from `status` to `following`."""
    return following in _NEXT[status]
