"""`unikernel-shim logs`: what a guest said on its console, as far as somebody keeps it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from shim.cli import log_files, terminal
from shim.cli.log_lines import Line, Reader, after, since
from shim.cli.pods import pod_argument


@click.command("logs", epilog=terminal.EXIT_CODES)
@pod_argument()
@click.option("-c", "--container", default="", metavar="NAME", help="Which of its containers; default: the unikernel.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, into the container's next lives.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of what is there.")
@click.option(
    "--since", "begin", metavar="TIME", help="Only what was said since: 90s, 5m, 1h30m, or a time (RFC 3339)."
)
@click.option("--timestamps", is_flag=True, help="Put before each line when it was said.")
@click.option("--previous", is_flag=True, help="Of the container's life before the present one.")
@terminal.json_option("Print each line as JSON, one a line.")
@click.pass_obj
def command(
    config_path: Path | None,
    pod: str,
    container: str,
    follow: bool,
    tail: int | None,
    begin: str | None,
    timestamps: bool,
    previous: bool,
    as_json: bool,
) -> None:
    """Print what POD's guest has written on its console, and its monitor on stderr.

    POD is NAME, NAMESPACE/NAME, or the beginning of a sandbox's or a container's id. The service keeps no output: this
    reads the files that the kubelet has containerd write, on this node, or the one that `ctr run --log-uri file://`
    names.
    """
    from shim import config
    from shim.cli.client import ask
    from shim.errors import InvalidRequest
    from shim.wire import inspection_pb2 as pb

    if follow and previous:
        raise InvalidRequest("a life that is over does not go on", remedy="give --follow or --previous")
    limit = since(begin, datetime.now(UTC)) if begin is not None else None
    answer = ask(config.load(config_path), "Logs", pb.LogsRequest(pod=pod), pb.LogsResponse)
    source = log_files.source(answer, container)
    if source.file is not None and (limit is not None or timestamps):
        raise InvalidRequest("a plain file does not say when a line was written", subject=str(source.file))
    path = log_files.current(source, previous=previous)
    show = _show_json if as_json else shown(timestamps=timestamps)
    if follow:
        follow_log(source, path, show, tail=tail, wanted=after(limit))
        return
    kept: Iterator[Line] = filter(after(limit), _all(path, Reader(cri=source.file is None)))
    for line in kept if tail is None else deque(kept, maxlen=tail):
        show(line)


def _all(path: Path, reader: Reader) -> Iterator[Line]:
    for raw in log_files.lines(path):
        if (line := reader.read(raw)) is not None:
            yield line
    yield from reader.rest()


def follow_log(
    source: log_files.Source,
    path: Path,
    show: Callable[[Line], None],
    *,
    tail: int | None = None,
    wanted: Callable[[Line], bool] = lambda _: True,
) -> None:
    """Show what is there, the last `tail` lines of it, and what comes, until the pod's logs are removed."""
    reader = Reader(cri=source.file is None)
    held: deque[Line] | None = deque(maxlen=tail) if tail is not None else None

    def take(lines: Iterable[Line]) -> None:
        for line in filter(wanted, lines):
            if held is None:
                show(line)
            else:
                held.append(line)

    for raw in log_files.follow(source, path):
        if isinstance(raw, log_files.Again):
            # What the former life was about to say when it ended.
            take(reader.rest())
            terminal.note("the container was started again")
            reader = Reader(cri=True)
        elif raw is None:
            for line in held or ():
                show(line)
            held = None
            sys.stdout.flush()
        elif (read := reader.read(raw)) is not None:
            take([read])
    take(reader.rest())


def shown(*, timestamps: bool) -> Callable[[Line], None]:
    """What prints a line: to the letter in a pipe, on a terminal without what that would obey."""
    on_terminal = terminal.on_terminal()

    def show(line: Line) -> None:
        before = f"{line.at} " if timestamps and line.at else ""
        if on_terminal:
            # A serial console ends its lines with both.
            text = line.text.removesuffix(b"\r").decode(errors="replace")
            sys.stdout.write(f"{before}{terminal.harmless(text)}\n")
        else:
            sys.stdout.buffer.write(before.encode() + line.text + b"\n")

    return show


def _show_json(line: Line) -> None:
    terminal.print_json_line(
        {"at": line.at or None, "stream": line.stream or None, "text": line.text.decode(errors="replace")}
    )
