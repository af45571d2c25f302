"""A topology in a terminal, or in a pipe: boxes of characters, one below the other, two columns where there is room.

Every line is exactly as wide as asked. Colour only underlines what words say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shim.cli.terminal import plain
from shim.cli.topology.captions import (
    BEFORE,
    NOW,
    PLACES,
    Card,
    Cell,
    Line,
    Row,
    Section,
    Wire,
    fold,
    heading,
    sections,
    verdict,
    width_of,
)
from shim.network.topology.model import Place, Topology

if TYPE_CHECKING:
    from rich.text import Text

#: The narrowest drawing, and the narrowest and widest column: an IPv6 address with its name fits, and a line that is
#: longer than that is hard to read.
_LEAST, _COLUMN, _WIDEST = 32, 44, 76
_GAP = 3
_NAME = 9  # the longest name of a line


class Span(NamedTuple):
    """A piece of a line, and the key in terminal.STYLES of how it looks; "" for as it is."""

    text: str
    style: str = ""


Spans = tuple[Span, ...]


class Pen(NamedTuple):
    """The characters that lines are drawn with."""

    across: str
    down: str
    corners: str
    into: str
    out: str
    rule: str
    crossing: str
    broken: str
    arrow: str


BOXES = Pen("─", "│", "┌┐└┘", "┴", "┬", "╌", "┼", "╳", "◀")  # noqa: RUF001 - a cross
ASCII = Pen("-", "|", "++++", "+", "+", ".", "+", "X", "<-")


def pen_for(encoding: str) -> Pen:
    """Box-drawing characters where the terminal's encoding has them, else ASCII."""
    try:
        "".join(BOXES).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BOXES


def draw(topology: Topology, width: int, pen: Pen = BOXES) -> list[Spans]:
    """The lines of the whole drawing: what it is of, what is wrong, then each interface."""
    width = max(width, _LEAST)
    title, rest = heading(topology)
    lines: list[Spans] = [(Span(text, "head"),) for text in fold(title, width)]
    lines += [(Span(text, "quiet"),) for text in fold(rest, width)]
    style = "bad" if topology.faults else "good" if topology.plumbed else ""
    lines += [(Span(text, style),) for text in fold(verdict(topology), width)]
    for number, fault in enumerate(topology.faults, 1):
        lines += _hanging(f"fault {number}: ", plain(fault.sentence), width, "bad")
        if fault.remedy:
            lines += _hanging("   to do: ", plain(fault.remedy), width, "")
    for note in topology.notes:
        lines += _hanging("note: ", plain(note), width, "quiet")
    for section in sections(topology):
        lines.append(())
        lines += _section(section, width, pen)
    return lines


def as_text(lines: list[Spans]) -> str:
    """The lines without style, each with its end."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)


def styled(lines: list[Spans]) -> Text:
    """The lines for a terminal, the last one without its end."""
    from rich.text import Text

    return Text("\n", end="", no_wrap=True, overflow="crop").join(
        Text.assemble(*((span.text, span.style) for span in line)) for line in lines
    )


def _hanging(head: str, text: str, width: int, style: str) -> list[Spans]:
    folded = fold(text, width - len(head))
    return [
        (Span(head if not position else " " * len(head), style), Span(line, style))
        for position, line in enumerate(folded)
    ]


def _section(section: Section, width: int, pen: Pen) -> Iterator[Spans]:
    yield (Span(section.title, "head"),)
    if section.compared and width >= 2 * _COLUMN + _GAP:
        column = min((width - _GAP) // 2, _WIDEST)
        left = _column(section.rows, [row.before for row in section.rows], BEFORE, column, pen)
        right = _column(section.rows, [row.now for row in section.rows], NOW, column, pen)
        for before, now in zip(left, right, strict=True):
            height = max(before.height, now.height)
            for one, other in zip(before.filled(height), now.filled(height), strict=True):
                yield (*one, Span(" " * _GAP), *other)
        return
    column = min(width, _WIDEST)
    columns = [(NOW, [row.now for row in section.rows])]
    if section.compared:
        columns.insert(0, (BEFORE, [row.before for row in section.rows]))
    for name, cells in columns:
        # By itself, a column says nothing of where it has nothing.
        kept = [(row, cell) for row, cell in zip(section.rows, cells, strict=True) if cell.card is not None]
        for block in _column([row for row, _ in kept], [cell for _, cell in kept], name, column, pen):
            yield from block.filled(block.height)


class _Block(NamedTuple):
    """One row of a column. What it lacks in height is made up between its two parts, by `filling`: a wire goes on, and
    a card that nothing leads to stands at the foot."""

    above: list[Spans]
    filling: Spans
    below: list[Spans]

    @property
    def height(self) -> int:
        return len(self.above) + len(self.below)

    def filled(self, height: int) -> Iterator[Spans]:
        yield from self.above
        yield from [self.filling] * (height - self.height)
        yield from self.below


def _column(rows: Sequence[Row], cells: Sequence[Cell], name: str, width: int, pen: Pen) -> list[_Block]:
    """A block for the column's name, and one for each row."""
    empty = (Span(" " * width),)
    blocks = [_Block([(Span(_padded(text, width), "head"),) for text in fold(name, width)], empty, [])]
    place: Place | None = None
    entered = False
    for cell, row in zip(cells, rows, strict=True):
        above = [] if row.place == place else [_rule(PLACES[row.place], width, pen, crossed=entered)]
        place = row.place
        if cell.card is None:
            blocks.append(_Block(above, empty, []))
            continue
        drawn = list(_box(cell.card, width, pen, entered=entered, left=cell.wire is not None))
        if cell.wire is not None:
            drawn += _wire(cell.wire, width, pen)
        going_on = (Span(_padded(" " * _axis(width) + pen.down, width)),) if cell.wire is not None else empty
        blocks.append(_Block(above + drawn, going_on, []) if entered else _Block(above, empty, drawn))
        entered = cell.wire is not None
    return blocks


def _axis(width: int) -> int:
    """Where wires run: nearer to the left, so that their words have room."""
    return width // 4


def _rule(place: str, width: int, pen: Pen, *, crossed: bool) -> Spans:
    axis = _axis(width)
    line = f"{pen.rule * axis}{pen.crossing if crossed else pen.rule}{pen.rule} {place} "
    return (Span(line + pen.rule * (width - width_of(line)), "quiet"),)


def _box(card: Card, width: int, pen: Pen, *, entered: bool, left: bool) -> Iterator[Spans]:
    bad = "bad" if card.faults else ""
    kind = f" {card.kind}" if card.kind and card.kind != card.title else ""
    axis, inner = _axis(width), width - 4
    top = f"{pen.corners[0]}{pen.across * (width - 2)}{pen.corners[1]}"
    bottom = f"{pen.corners[2]}{pen.across * (width - 2)}{pen.corners[3]}"
    if entered:
        top = top[:axis] + pen.into + top[axis + 1 :]
    if left:
        bottom = bottom[:axis] + pen.out + bottom[axis + 1 :]
    edge, end = Span(f"{pen.down} ", bad), Span(f" {pen.down}", bad)
    yield (Span(top, bad),)
    title = f"{card.title}{kind}"
    if width_of(title) + 2 + width_of(card.owner) <= inner:
        between = " " * (inner - width_of(title) - width_of(card.owner))
        yield (edge, Span(card.title, "head"), Span(kind + between), Span(card.owner, "quiet"), end)
    else:
        for text in fold(title, inner):
            yield (edge, Span(_padded(text, inner), "head"), end)
        for text in fold(card.owner, inner):
            yield (edge, Span(_padded(text, inner), "quiet"), end)
    for line in card.lines:
        for spans in _line(line, inner, pen):
            yield (edge, *spans, end)
    yield (Span(bottom, bad),)


def _line(line: Line, inner: int, pen: Pen) -> Iterator[Spans]:
    room = inner - _NAME - 1
    style = "bad" if line.faults else ""
    for position, text in enumerate(_marked(fold(line.value, room), line.faults, room, pen)):
        name = line.name if not position else ""
        yield Span(f"{name:<{_NAME}} ", style or "quiet"), Span(_padded(text, room), style)


def _wire(wire: Wire, width: int, pen: Pen) -> Iterator[Spans]:
    axis = _axis(width)
    room = width - axis - 2
    style = "bad" if wire.faults or not wire.whole else ""
    for position, text in enumerate(_marked(fold(wire.words, room), wire.faults, room, pen)):
        sign = pen.down if wire.whole or position else pen.broken
        yield Span(" " * axis), Span(sign, style), Span(_padded(f" {text}", room + 1), style or "quiet")


def _marked(lines: list[str], faults: tuple[int, ...], room: int, pen: Pen) -> list[str]:
    """The lines with the words by which their faults are marked, on the last one where there is room."""
    if not faults:
        return lines
    mark = f"{pen.arrow} fault {', '.join(map(str, faults))}"
    if width_of(lines[-1]) + 1 + width_of(mark) <= room:
        return [*lines[:-1], f"{lines[-1]} {mark}"]
    return [*lines, *fold(mark, room)]


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - width_of(text))
