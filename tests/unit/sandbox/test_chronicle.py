"""What operators are told of each thing that happens, and how much of it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from shim.process.reaper import Exit
from shim.process.stdio import Streams
from shim.sandbox import occurrences as happened
from shim.sandbox.chronicle import CAPACITY, Chronicle, entry
from shim.services.announce import event as containerds

ABOUT: dict[str, Any] = {"namespace": "k8s.io", "sandbox": "abc123", "pod": ("default", "web"), "container": "def456"}


def all_kinds(of: type[happened.Occurrence] = happened.Occurrence) -> list[type[happened.Occurrence]]:
    return [kind for each in of.__subclasses__() for kind in (each, *all_kinds(each))]


EXAMPLES: dict[type[happened.Occurrence], tuple[dict[str, Any], str, str]] = {
    happened.SandboxCreated: ({}, "sandbox-created", "known"),
    happened.SandboxStarted: ({}, "sandbox-started", "takes containers"),
    happened.SandboxStopped: ({}, "sandbox-stopped", "nothing of the sandbox runs"),
    happened.SandboxRemoved: ({}, "sandbox-removed", "gone"),
    happened.Plumbed: ({"interfaces": ("eth0 10.0.0.2/24",), "took": 0.0031}, "plumbed", "eth0 10.0.0.2/24, in 3.1 ms"),
    happened.Restored: ({}, "restored", "as they were"),
    happened.Created: ({"pid": 7, "bundle": "/b", "rootfs": (), "streams": Streams()}, "created", "pid 7"),
    happened.Started: ({"pid": 7}, "started", "pid 7"),
    happened.Failed: ({"call": "started", "error": "no kernel"}, "failed", "could not be started: no kernel"),
    happened.ExecAdded: ({"process": "e1"}, "exec-added", "e1"),
    happened.ExecStarted: ({"process": "e1", "pid": 8}, "exec-started", "e1 runs, pid 8"),
    happened.Paused: ({}, "paused", "frozen"),
    happened.Resumed: ({}, "resumed", "again"),
    happened.OutOfMemory: ({}, "oom", "memory"),
    happened.Exited: (
        {"process": "def456", "pid": 7, "exit": Exit(137, 1), "words": "out of luck"},
        "exited",
        "ended with status 137 (SIGKILL): out of luck",
    ),
    happened.Deleted: ({"pid": 7, "exit": Exit(0, 1)}, "deleted", "gone"),
    happened.Checked: ({"findings": 3, "failures": ("no answer",)}, "checked", "1 of 3 failed: no answer"),
    happened.Adopted: ({"pid": 7, "alive": False}, "adopted", "pid 7, which has ended meanwhile"),
    happened.LeftoverRemoved: ({"what": "a tap"}, "leftover-removed", "a tap"),
}


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_every_occurrence_has_its_words(kind: type[happened.Occurrence]) -> None:
    fields, what, words = EXAMPLES[kind]
    line = entry(kind(**ABOUT, **fields), at=5)
    assert line.what == what and words in line.sentence, line
    assert (line.at, line.namespace, line.sandbox, line.pod, line.container) == (5, *ABOUT.values())
    assert line.exit_status == (137 if kind is happened.Exited else None)
    # containerd has an event for what concerns a task, and for nothing else.
    tasks = ("created", "started", "exec-added", "exec-started", "oom", "exited", "deleted", "paused", "resumed")
    assert (containerds(kind(**ABOUT, **fields)) is not None) is (what in tasks)


def test_how_a_process_ended() -> None:
    def said(process: str, status: int, words: str = "") -> tuple[str, str]:
        line = entry(happened.Exited(**ABOUT, process=process, pid=7, exit=Exit(status, 1), words=words), 1)
        return line.what, line.sentence

    assert said("def456", 0, "bye") == ("exited", "ended with status 0")  # what went well needs no reason
    assert said("def456", 255) == ("exited", "ended with status 255")
    assert said("e1", 1) == ("exec-exited", "e1 ended with status 1")
    assert len(said("def456", 1, "x" * 10_000)[1]) < 600


@pytest.mark.parametrize(
    ("wanted", "concerned"),
    [
        *((wanted, True) for wanted in ("", "web", "default/web", "abc", "def4")),
        *((wanted, False) for wanted in ("we", "other/web", "bc1", "/")),
    ],
)
def test_whom_a_line_concerns(wanted: str, concerned: bool) -> None:
    assert entry(happened.Restored(**ABOUT), 1).concerns(wanted) is concerned


async def test_a_bounded_number_is_kept_and_then_followed() -> None:
    chronicle = Chronicle()
    assert [line.what for line in chronicle.recent()] == ["service-started"]
    for number in range(CAPACITY + 5):
        chronicle.hear(happened.Started(**ABOUT, pid=number))
    kept = chronicle.recent()
    assert len(kept) == CAPACITY and kept[-1].sentence.endswith(f"pid {CAPACITY + 4}")
    with chronicle.follow() as listener:
        assert [await listener.next() for _ in kept] == kept
        chronicle.hear(happened.Restored(**ABOUT))
        followed = await listener.next()
        assert followed is not None and followed == chronicle.recent()[-1]
