"""A pod's life: what a sandbox and the processes in it can be, which call is allowed when, and what a failure leaves.

A sandbox. One of the Sandbox API is created and started; one that a container implies (a pod with a pause container, a
container outside a pod) is ready as long as it has containers.

    created ──start──▶ ready ──stop──▶ stopping ──▶ stopped ──shutdown──▶ (gone)
       └───────────────stop──────────────▲

A process: a container's init, or an exec.

    created ──start──▶ running ◀──resume── paused
       │                  │ ──pause──▶        │
       └──── exit ────────┴────── exit ───────┘
                          ▼
                       stopped ──delete──▶ deleted

What changes a pod takes its turn: one call at a time in a pod, and none waits for another pod's. A signal does not
change anything by itself, so Kill never waits.

| call | where it fails, or its deadline passes, or its caller goes away | it leaves |
|---|---|---|
| Create of a sandbox | the journal cannot be written | nothing |
| Start of a sandbox | it has been started; it is being stopped | what was |
| Create of a container | anywhere: image, network, engine, a Delete or Stop meanwhile | nothing, the id is free |
| Start | the engine refuses | created: Start may be repeated |
| Start | the monitor died at once | stopped, with its exit; Delete is next |
| Start | the monitor does not boot its guest | it is ended; stopped, with its exit; Delete is next |
| Kill | no such process | what was; the exit comes by itself |
| Pause | the engine refuses | what the kernel says: running, or paused after all |
| Resume, Update | the engine refuses | what was |
| the exit | eth0 cannot be restored | stopped, exit told; Delete tries again |
| Delete | a step of the teardown fails | stopped, its record kept; Delete may be repeated |
| Stop | a container does not die | stopping: nothing new is let in; Stop may be repeated |
| Shutdown | a container cannot be removed | stopped; Shutdown may be repeated |
| any | the daemon is killed | the next one finishes what was whole, and removes what was not (`adoption`) |

A call that may not be cut off half way runs to its end although its caller is gone; the next call waits its turn and
finds the state that this one leaves. Create alone is cut off, and undone.

The refusals of a process's calls, word and code, are those of containerd's runc shim, as clients rely on them: a bare
error (UNKNOWN) for a call in the wrong state, NOT_FOUND for a signal to the dead.
"""

from __future__ import annotations

import enum

from shim.errors import AlreadyExists, Unexpected, WrongState


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


class SandboxStatus(enum.StrEnum):
    """Where in its life a sandbox is."""

    CREATED = "created"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


class SandboxCall(enum.StrEnum):
    """The calls that depend on it; Stop and Shutdown are allowed always."""

    START = "start"
    CREATE = "create a container in"


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

_SANDBOX_ALLOWED: dict[SandboxCall, SandboxStatus] = {
    SandboxCall.START: SandboxStatus.CREATED,
    SandboxCall.CREATE: SandboxStatus.READY,
}

_SANDBOX_NEXT: dict[SandboxStatus, tuple[SandboxStatus, ...]] = {
    SandboxStatus.CREATED: (SandboxStatus.READY, SandboxStatus.STOPPING),
    SandboxStatus.READY: (SandboxStatus.STOPPING,),
    SandboxStatus.STOPPING: (SandboxStatus.STOPPED,),
    SandboxStatus.STOPPED: (),
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


def require_sandbox(status: SandboxStatus, call: SandboxCall, subject: str) -> None:
    """Raise WrongState unless `call` is allowed in `status`, AlreadyExists for a second start."""
    if status is _SANDBOX_ALLOWED[call]:
        return
    if call is SandboxCall.START and status is SandboxStatus.READY:
        raise AlreadyExists("the sandbox has been started", subject=subject)
    remedy = "start it first" if status is SandboxStatus.CREATED else "make another sandbox"
    raise WrongState(f"cannot {call} a {status} sandbox", subject=subject, remedy=remedy)


def sandbox_may_become(status: SandboxStatus, following: SandboxStatus) -> bool:
    """Whether the picture above has an arrow from `status` to `following`."""
    return following in _SANDBOX_NEXT[status]
