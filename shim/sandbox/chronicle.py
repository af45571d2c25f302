"""What has happened to pods lately, kept in memory for operators: a bounded number of lines, and those who follow.

It begins with the daemon. What happened before is not known to it, and its first line says so.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from shim.feed import Feed, Listener
from shim.sandbox import occurrences as happened

#: Lines that are kept, and that may wait for one who follows.
CAPACITY: Final = 1000
_LONGEST = 500  # characters of words that a guest, a monitor or an image chose


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `at` is in nanoseconds since the epoch, `what` a word of docs/commands.md, the rest Occurrence's."""

    at: int
    what: str
    sentence: str
    namespace: str = ""
    sandbox: str = ""
    pod: tuple[str, str] = ("", "")
    container: str = ""
    exit_status: int | None = None

    def concerns(self, wanted: str) -> bool:
        """Whether it is of the pod that NAME, NAMESPACE/NAME, or the beginning of an id means; "" means every pod."""
        return (
            not wanted
            or wanted in (self.pod[1], "/".join(self.pod))
            or self.sandbox.startswith(wanted)
            or self.container.startswith(wanted)
        )


class Chronicle:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self._lines: deque[Entry] = deque(maxlen=CAPACITY)
        self._feed: Feed[Entry] = Feed(CAPACITY)
        self._note(Entry(at=time.time_ns(), what="service-started", sentence="what happened before is not known"))

    def hear(self, occurrence: happened.Occurrence) -> None:
        """Note an occurrence; neither blocks nor raises."""
        self._note(entry(occurrence, time.time_ns()))

    def _note(self, line: Entry) -> None:
        self._lines.append(line)
        self._feed.tell(line)

    def recent(self) -> list[Entry]:
        """What is kept, oldest first."""
        return list(self._lines)

    @contextmanager
    def follow(self) -> Iterator[Listener[Entry]]:
        """What is kept, and what happens while the context is open."""
        with self._feed.listen(self._lines) as listener:
            yield listener


def entry(occurrence: happened.Occurrence, at: int) -> Entry:
    """The line for an occurrence. Pure."""
    what, sentence = _WORDS[type(occurrence)]
    status = None
    if isinstance(occurrence, happened.Exited):
        status = occurrence.exit.status
        if occurrence.process != occurrence.container:
            what = "exec-exited"
    text = sentence(occurrence)
    return Entry(
        at=at,
        what=what,
        sentence=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...",
        namespace=occurrence.namespace,
        sandbox=occurrence.sandbox,
        pod=occurrence.pod,
        container=occurrence.container,
        exit_status=status,
    )


def _exited(it: happened.Exited) -> str:
    process = "" if it.process == it.container else f"{it.process} "
    words = f": {it.words}" if it.words and it.exit.status else ""
    return f"{process}ended with status {it.exit.status}{_signal(it.exit.status)}{words}"


def _signal(status: int) -> str:
    """What a status above 128 stands for, as shells have it (bash(1), EXIT STATUS)."""
    try:
        return f" ({signal.Signals(status - 128).name})"
    except ValueError:
        return ""


def _plumbed(it: happened.Plumbed) -> str:
    return f"the guest has {', '.join(it.interfaces)}, in {it.took * 1e3:.1f} ms"


def _checked(it: happened.Checked) -> str:
    if it.failures:
        return f"{len(it.failures)} of {it.findings} failed: {'; '.join(it.failures)}"
    return f"nothing is wrong, {it.findings} proofs"


def _adopted(it: happened.Adopted) -> str:
    return f"taken over from a former daemon, pid {it.pid}" + ("" if it.alive else ", which has ended meanwhile")


_WORDS: Final[dict[type[happened.Occurrence], tuple[str, Callable[[Any], str]]]] = {
    happened.SandboxCreated: ("sandbox-created", lambda it: "the sandbox is known"),
    happened.SandboxStarted: ("sandbox-started", lambda it: "the sandbox takes containers"),
    happened.SandboxStopped: ("sandbox-stopped", lambda it: "nothing of the sandbox runs any more"),
    happened.SandboxRemoved: ("sandbox-removed", lambda it: "the sandbox is gone"),
    happened.Plumbed: ("plumbed", _plumbed),
    happened.Restored: ("restored", lambda it: "the pod's interfaces are as they were before the guest"),
    happened.Created: ("created", lambda it: f"created, pid {it.pid}"),
    happened.Started: ("started", lambda it: f"runs, pid {it.pid}"),
    happened.Failed: ("failed", lambda it: f"could not be {it.call}: {it.error}"),
    happened.ExecAdded: ("exec-added", lambda it: f"{it.process} is described"),
    happened.ExecStarted: ("exec-started", lambda it: f"{it.process} runs, pid {it.pid}"),
    happened.Paused: ("paused", lambda it: "frozen"),
    happened.Resumed: ("resumed", lambda it: "runs again"),
    happened.OutOfMemory: ("oom", lambda it: "the kernel killed for want of memory"),
    happened.Exited: ("exited", _exited),
    happened.Deleted: ("deleted", lambda it: "the container is gone"),
    happened.Checked: ("checked", _checked),
    happened.Adopted: ("adopted", _adopted),
    happened.LeftoverRemoved: ("leftover-removed", lambda it: f"removed what a former daemon left: {it.what}"),
}
