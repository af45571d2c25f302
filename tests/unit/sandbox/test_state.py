"""The life of a process, against what containerd's runc shim answers."""

from __future__ import annotations

import pytest

from shim.errors import AlreadyExists, Code, Unexpected, WrongState
from shim.sandbox.state import (
    Call,
    SandboxCall,
    SandboxStatus,
    Status,
    may_become,
    require,
    require_sandbox,
    sandbox_may_become,
)

# Read off containerd's cmd/containerd-shim-runc-v2/process/{init_state,exec_state}.go.
_REFUSED = [
    (Status.RUNNING, Call.START, "cannot start a running process"),
    (Status.STOPPED, Call.START, "cannot start a stopped process"),
    (Status.PAUSED, Call.START, "cannot start a paused process"),
    (Status.DELETED, Call.START, "cannot start a deleted process"),
    (Status.RUNNING, Call.DELETE, "cannot delete a running process"),
    (Status.PAUSED, Call.DELETE, "cannot delete a paused process"),
    (Status.DELETED, Call.DELETE, "cannot delete a deleted process"),
    (Status.PAUSED, Call.PAUSE, "cannot pause a paused container"),
    (Status.STOPPED, Call.PAUSE, "cannot pause a stopped container"),
    (Status.STOPPED, Call.RESUME, "cannot resume a stopped container"),
    (Status.STOPPED, Call.UPDATE, "cannot update a stopped container"),
    (Status.STOPPED, Call.EXEC, "cannot exec in a stopped state"),
    (Status.PAUSED, Call.EXEC, "cannot exec in a paused state"),
    (Status.STOPPED, Call.RESIZE, "cannot resize a stopped container"),
]


@pytest.mark.parametrize(("status", "call", "words"), _REFUSED)
def test_refusals_are_the_runc_shims(status: Status, call: Call, words: str) -> None:
    with pytest.raises(Unexpected, match=words) as raised:
        require(status, call, "c1")
    assert raised.value.code is Code.UNKNOWN


@pytest.mark.parametrize("status", Status)
def test_some_call_decides_for_every_status(status: Status) -> None:
    allowed = []
    for call in Call:
        try:
            require(status, call, "c1")
        except Unexpected:
            continue
        allowed.append(call)
    assert bool(allowed) == (status is not Status.DELETED)


def test_nobody_comes_back_from_the_dead() -> None:
    assert not any(may_become(Status.DELETED, status) for status in Status)
    assert not may_become(Status.STOPPED, Status.RUNNING)
    assert may_become(Status.CREATED, Status.STOPPED)


@pytest.mark.parametrize("status", SandboxStatus)
@pytest.mark.parametrize("call", SandboxCall)
def test_what_a_sandbox_allows(status: SandboxStatus, call: SandboxCall) -> None:
    allowed = {(SandboxStatus.CREATED, SandboxCall.START), (SandboxStatus.READY, SandboxCall.CREATE)}
    if (status, call) in allowed:
        require_sandbox(status, call, "s")
        return
    twice = (status, call) == (SandboxStatus.READY, SandboxCall.START)
    with pytest.raises(AlreadyExists if twice else WrongState, match=r"s: .*sandbox"):
        require_sandbox(status, call, "s")


def test_a_sandboxs_life_has_one_way() -> None:
    steps = {(was, now) for was in SandboxStatus for now in SandboxStatus if sandbox_may_become(was, now)}
    created, ready, stopping, stopped = SandboxStatus
    assert steps == {(created, ready), (created, stopping), (ready, stopping), (stopping, stopped)}
