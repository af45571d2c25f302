"""How subcommands print: tables and colour for a person at a terminal, plain lines for a pipe, JSON for a program.

A table off a terminal is a line a row, its cells apart by tabs, so that cut(1) and awk(1) take it as it is. NO_COLOR
(no-color.org) turns colour off on a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

_F = TypeVar("_F", bound=Callable[..., Any])

#: What the states of things look like on a terminal, whatever the subcommand.
STYLES: Final = {"good": "green", "bad": "bold red", "doubtful": "yellow", "quiet": "dim", "head": "bold"}


def json_option(text: str) -> Callable[[_F], _F]:
    """The option --json of a subcommand, as its parameter `as_json`; `text` is its help."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def print_json(value: object) -> None:
    """One JSON value on stdout, indented; `value` is of what msgspec encodes."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def console() -> Console:
    """Where styled text goes: stdout, in the terminal's width; no colour and no wrapping where it is none."""
    from rich.console import Console
    from rich.theme import Theme

    terminal = on_terminal()
    return Console(
        theme=Theme(dict(STYLES)),
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=not terminal,
        # rich takes FORCE_COLOR and the like for a terminal; the pipe decides.
        force_terminal=terminal,
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]]) -> None:
    """A table on stdout. A cell is text, or text and the key in STYLES of how it looks on a terminal.

    What has no width left wraps within its column; nothing is cut off. Control characters are shown, not obeyed.
    """
    cells = [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    if not on_terminal():
        for line in ([(column, "") for column in columns], *cells):
            click.echo("\t".join(plain(text) for text, _ in line))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="head")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(plain(text), style=style) for text, style in row))
    console().print(table)


def plain(text: str) -> str:
    """`text` on one line, without what a terminal would obey: names and words come from images and guests."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
