"""Following a topology: drawn again when it has changed.

On a terminal it has a screen of its own, which is taken away at the end with everything on it, whatever ends it. In a
pipe each drawing follows the one before, after an empty line.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from shim.cli import terminal
from shim.cli.endings import tidied_up
from shim.cli.topology import text

if TYPE_CHECKING:
    from shim.network.topology.model import Topology

_EVERY = 1.0  # seconds between two looks


def follow(look: Callable[[], Topology], width: Callable[[], int]) -> None:
    """Draw what `look` gives, `width` columns wide, and again for as long as nobody interrupts. Raises what `look`
    does, as when the pod has ended."""
    pen = text.pen_for(sys.stdout.encoding)
    if terminal.on_terminal():
        with tidied_up(), _screen():
            _on_terminal(look, pen)
    else:
        _in_pipe(look, width, pen)


def _in_pipe(look: Callable[[], Topology], width: Callable[[], int], pen: text.Pen) -> None:
    last: Topology | None = None
    while True:
        found = look()
        if found != last:
            click.echo(("" if last is None else "\n") + text.as_text(text.draw(found, width(), pen)), nl=False)
            last = found
        time.sleep(_EVERY)


def _on_terminal(look: Callable[[], Topology], pen: text.Pen) -> None:
    drawn: tuple[object, ...] = ()
    while True:
        found, size = look(), shutil.get_terminal_size()
        if (found, size) != drawn:
            _show(text.draw(found, size.columns, pen), size.lines)
            drawn = (found, size)
        time.sleep(_EVERY)


def _show(lines: list[text.Spans], height: int) -> None:
    """As much as there is room for; what is wrong is at the top."""
    if len(lines) > height:
        left = len(lines) - height + 1
        lines = [*lines[: height - 1], (text.Span(f"{left} more lines: make the window higher", "doubtful"),)]
    from rich.control import Control

    screen = terminal.console()
    screen.control(Control.clear(), Control.home())
    screen.print(text.styled(lines), end="")


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of our own, and the terminal as it was afterwards."""
    screen = terminal.console()
    try:
        screen.set_alt_screen(True)
        screen.show_cursor(False)
        yield
    finally:
        screen.show_cursor(True)
        screen.set_alt_screen(False)
