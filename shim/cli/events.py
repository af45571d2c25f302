"""`unikernel-shim events`: what happens to pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shim.cli import terminal
from shim.cli.pods import pod_option

if TYPE_CHECKING:
    from shim.config import Config
    from shim.wire import inspection_pb2 as pb

_LOOK: Final = 0.5  # seconds until daemons are looked for again
_STYLES: Final = {
    "started": "good",
    "plumbed": "good",
    "failed": "bad",
    "oom": "bad",
    "missed": "bad",
    "exec-added": "quiet",
    "exec-started": "quiet",
    "exec-exited": "quiet",
    "leftover-removed": "doubtful",
    "service-started": "quiet",
}


@click.command("events", epilog=terminal.EXIT_CODES)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@pod_option("Only what concerns this pod, which need not be there (any more).")
@terminal.json_option("Print each event as JSON, one a line.")
@click.pass_obj
def command(config_path: Path | None, follow: bool, pod: str | None, as_json: bool) -> None:
    """Print what has happened to pods: TIME, POD, what, and a sentence.

    The service remembers its last thousand events, and none from before it was started. With --follow, its restart is
    said on stderr, and printing goes on with the next one.
    """
    from shim import config
    from shim.errors import InvalidRequest

    if pod == "":
        raise InvalidRequest("no pod is named", remedy="give POD, or leave --pod out for all of them")
    show = _show_json if as_json else _show
    settings = config.load(config_path)
    asyncio.run(_follow(settings, pod or "", show) if follow else _recent(settings, pod or "", show))


async def _recent(config: Config, pod: str, show: Callable[[pb.Event], None]) -> None:
    """What every daemon remembers, in the order of time. Raises Unreachable where there is none, TimedOut where those
    that there are hang."""
    from shim.cli import client
    from shim.errors import TimedOut, Unreachable
    from shim.wire import inspection_pb2 as pb

    found: list[pb.Event] = []
    answered = False
    late: TimedOut | None = None
    for door in client.doors(config):
        try:
            async with client.events(door, pb.EventsRequest(pod=pod)) as events:
                answered = True
                found += [event async for event in events]
        except Unreachable:
            continue
        except TimedOut as error:
            late = error
    if not answered:
        raise late or client.nobody(config)
    if late is not None:
        terminal.note(str(late))
    for event in sorted(found, key=lambda event: event.at.ToNanoseconds()):
        show(event)


async def _follow(config: Config, pod: str, show: Callable[[pb.Event], None]) -> None:
    """Follow every daemon there is, and those that come. Raises Unreachable where there is none to begin with."""
    from shim.cli import client

    followed: dict[Path, _Followed] = {}
    first = True
    while True:
        for door in client.doors(config):
            known = followed.setdefault(door, _Followed(door, pod, show, spoken_of=door == config.grpc_socket))
            known.begin()
        if first:
            answers = await asyncio.gather(*(known.answered() for known in followed.values()))
            if not any(answers):
                raise client.nobody(config)
            first = False
        for door in [door for door, known in followed.items() if known.over and not door.exists()]:
            if door != config.grpc_socket:
                del followed[door]
        await asyncio.sleep(_LOOK)


class _Followed:
    """One daemon's events; begun again it goes on with the next daemon there."""

    def __init__(self, door: Path, pod: str, show: Callable[[pb.Event], None], *, spoken_of: bool) -> None:
        """`spoken_of` says that its end is told: a pod's daemon ends with its pod, and that is an event."""
        self._door, self._pod, self._show, self._spoken_of = door, pod, show, spoken_of
        self._last = 0  # nanoseconds since the epoch: what one connection showed, the next does not show again
        self._task: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        """Whether its daemon is gone."""
        return self._task is None or self._task.done()

    def begin(self) -> None:
        """Follow it unless that is being done. Raises what it answered before, unless it was gone."""
        if self._task is not None and self._task.done():
            self._task.result()
        if self.over:
            self._task = asyncio.ensure_future(self._follow())

    async def answered(self) -> bool:
        """Whether a daemon was there at the first attempt. Raises what it refused with."""
        answer = await self._answer
        if not answer and self._task is not None:
            await self._task
        return answer

    async def _follow(self) -> None:
        from shim.cli import client
        from shim.errors import Unreachable
        from shim.wire import inspection_pb2 as pb

        connected = False
        # Within one connection they come in order, whatever the clock did meanwhile.
        shown = self._last
        try:
            async with client.events(self._door, pb.EventsRequest(follow=True, pod=self._pod)) as events:
                connected = True
                self._settle(True)
                async for event in events:
                    at = event.at.ToNanoseconds()
                    if not at or at > shown:
                        self._last = max(self._last, at)
                        self._show(event)
        except Unreachable:
            if connected and self._spoken_of:
                terminal.note("the service is gone: its events go on when it is back")
        finally:
            self._settle(False)

    def _settle(self, answer: bool) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


def _show(event: pb.Event) -> None:
    from shim.clock import rfc3339
    from shim.sandbox.identifiers import SHOWN

    pod = f"{event.pod_namespace}/{event.pod_name}" if event.pod_name else event.sandbox[:SHOWN] or "-"
    failed = event.what in ("exited", "checked") and (event.exit_status or "failed" in event.sentence)
    style = "bad" if failed else _STYLES.get(event.what, "")
    at = rfc3339(event.at.ToNanoseconds()) or "-"
    words = f"{event.container[:SHOWN]}: {event.sentence}" if event.container else event.sentence
    terminal.print_line((at, "quiet"), (pod, "head"), (event.what, style), words)


def _show_json(event: pb.Event) -> None:
    terminal.print_json_line(as_object(event))


def as_object(event: pb.Event) -> dict[str, Any]:
    """One event; `exit_status` is null for what is no exit."""
    from shim.clock import rfc3339

    return {
        "at": rfc3339(event.at.ToNanoseconds()),
        "what": event.what,
        "namespace": event.namespace,
        "sandbox": event.sandbox,
        "pod": {"namespace": event.pod_namespace, "name": event.pod_name},
        "container": event.container,
        "sentence": event.sentence,
        "exit_status": event.exit_status if event.HasField("exit_status") else None,
    }
