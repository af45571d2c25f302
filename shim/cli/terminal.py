"""How subcommands print: tables and colour for a person at a terminal, plain lines for a pipe, JSON for a program.

A table off a terminal is a line a row, its cells apart by tabs, so that cut(1) and awk(1) take it as it is. NO_COLOR
(no-color.org) turns colour off on a terminal, and so does TERM=dumb.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

_F = TypeVar("_F", bound=Callable[..., Any])

#: What the states of things look like on a terminal, whatever the subcommand.
STYLES: Final = {"good": "green", "bad": "bold red", "doubtful": "yellow", "quiet": "dim", "head": "bold"}

#: The end of a subcommand's help, where it has no codes of its own; docs/commands.md has them all.
EXIT_CODES: Final = "Exit codes: 0 done, 1 something is wrong on the node, 2 the question makes no sense, 130 Ctrl-C."

Cell = str | tuple[str, str]

_GAP: Final = "  "
# Characters that a table's widest column needs to be readable: with less left, a row is a block with a line a cell.
_READABLE: Final = 16
# Colours and weights alone (ECMA-48, SELECT GRAPHIC RENDITION): they change how text looks and nothing else.
_RENDITION: Final = re.compile(r"\x1b\[[0-9;]*m")


def json_option(text: str) -> Callable[[_F], _F]:
    """The option --json of a subcommand, as its parameter `as_json`; `text` is its help."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def print_json(value: object) -> None:
    """One JSON value on stdout, indented; `value` is of what msgspec encodes."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_json_line(value: object) -> None:
    """One JSON value on stdout, on a line of its own, at once: for what goes on."""
    import msgspec

    click.echo(msgspec.json.encode(value))


def note(text: str) -> None:
    """Something to know, on stderr: it is no failure, and no part of the answer."""
    click.echo(f"unikernel-shim: {plain(text)}", err=True)


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def in_colour() -> bool:
    """Whether it is one that shows colour."""
    return on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


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
        # rich takes a dumb terminal for 80 columns wide.
        width=shutil.get_terminal_size().columns if terminal else None,
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """A table on stdout. A cell is text, or text and the key in STYLES of how it looks on a terminal.

    The widest column wraps where the terminal is narrower; where hardly any width is left to it, each row is a block
    with a line a cell. Nothing is cut off. Control characters are shown, not obeyed.
    """
    cells = [[_pair(cell) for cell in row] for row in rows]
    if not on_terminal():
        for line in ([(column, "") for column in columns], *cells):
            click.echo("\t".join(plain(text) for text, _ in line))
        return
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    texts = ([column, *(plain(row[place][0]) for row in cells)] for place, column in enumerate(columns))
    widths = [max(map(cell_len, column)) for column in texts]
    widest = widths.index(max(widths))
    left = out.width - sum(widths) - len(_GAP) * len(widths) + widths[widest]
    if left < min(_READABLE, widths[widest]):
        for number, row in enumerate(cells):
            if number:
                out.print()
            print_pairs(zip(columns, row, strict=True))
        return
    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="head")
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=place != widest)
    for row in cells:
        table.add_row(*(Text(plain(text), style=style) for text, style in row))
    out.print(table)


def print_pairs(pairs: Iterable[tuple[str, Cell]], *, margin: str = "", width: int = 0) -> None:
    """Names and values, a line a pair, the values under each other and names at least `width` wide; on a terminal
    values that are longer wrap there."""
    kept = [(name, *_pair(cell)) for name, cell in pairs]
    width = max(width, *(len(name) for name, _, _ in kept)) if kept else width
    if not on_terminal():
        for name, text, _ in kept:
            click.echo(f"{margin}{name:<{width}} {plain(text)}")
        return
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, style="quiet", min_width=width)
    table.add_column(overflow="fold")
    for name, text, style in kept:
        table.add_row(name, Text(plain(text), style=style))
    console().print(Padding(table, (0, 0, 0, len(margin))))


def print_words(*cells: Cell) -> None:
    """A line of text from parts that may be styled; on a terminal it wraps between words."""
    pairs = [_pair(cell) for cell in cells]
    if on_terminal():
        _print_styled("", pairs)
    else:
        click.echo("".join(plain(text) for text, _ in pairs))


def print_line(*cells: Cell) -> None:
    """A line of a list that grows, at once: cells apart by tabs; on a terminal by spaces, styled, wrapping at words."""
    pairs = [_pair(cell) for cell in cells]
    if on_terminal():
        _print_styled(_GAP, pairs)
    else:
        click.echo("\t".join(plain(text) for text, _ in pairs))


def _print_styled(between: str, pairs: Iterable[tuple[str, str]]) -> None:
    from rich.text import Text

    console().print(Text(between).join(Text(plain(text), style=style) for text, style in pairs), overflow="fold")


def _pair(cell: Cell) -> tuple[str, str]:
    return (cell, "") if isinstance(cell, str) else cell


def plain(text: str) -> str:
    """`text` on one line, without what a terminal would obey: names and words come from images and guests. On a
    terminal whose locale has no such characters, without those either."""
    ascii_alone = on_terminal() and not _in_unicode()
    return "".join(
        char if char.isprintable() and not (ascii_alone and ord(char) > 126) else char.encode("unicode_escape").decode()
        for char in text
    )


def harmless(text: str) -> str:
    """A line that a guest wrote, for a terminal: as `plain`, but tabs stay, and colours where they are shown."""
    coloured = in_colour()
    shown, at = [], 0
    for match in _RENDITION.finditer(text):
        shown.append(_tabbed(text[at : match.start()]))
        if coloured:
            shown.append(match[0])
        at = match.end()
    shown.append(_tabbed(text[at:]))
    return "".join(shown) + ("\x1b[0m" if coloured and at else "")


def _tabbed(text: str) -> str:
    return "\t".join(plain(part) for part in text.split("\t"))


def _in_unicode() -> bool:
    """Whether the locale's characters are Unicode's. Python writes UTF-8 in the locale C too (PEP 540), whatever is
    there to read it; the order of the variables is locale(7)'s."""
    for variable in ("LC_ALL", "LC_CTYPE", "LANG"):
        value = os.environ.get(variable)
        if value:
            return "utf" in value.lower()
    return False
