"""A topology as a picture: one SVG file that needs nothing else, the same bytes for the same topology. Pure.

The places are bands, one below the other, across both columns. What is wrong is in words at the top, and marked where
it is by the word and the fault's number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from shim.cli.terminal import plain
from shim.cli.topology import ink
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
    pieces,
    sections,
    verdict,
)
from shim.cli.topology.ink import element, text
from shim.network.topology.model import Fault, Owner, Place, Topology

_MARGIN, _BAND, _GUTTER = 24.0, 18.0, 44.0  # around all, around a column in its band, between the columns
_COLUMN = 408.0
_PADDING, _NAME = 14.0, 84.0  # within a card; the room for a line's name
_HEADER, _LINE = 28.0, 18.0
_WIRE, _WORDS = 20.0, 15.0  # a wire's least length, and the height of a line of its words
_TOP, _BOTTOM, _BETWEEN = 34.0, 16.0, 12.0  # within a band above and below its cards, and between bands
#: The classes of owners: what is the pod's own is drawn as what its CNI plugin made.
_OWNERS: dict[Owner, str] = {
    "guest": "guest", "shim": "shim", "cni": "cni", "pod": "cni", "node": "node", "unknown": "node",
}  # fmt: skip
_LEGEND = (("guest", "the guest's"), ("shim", "the shim's"), ("cni", "the CNI plugin's"), ("node", "the node's"))


def draw(topology: Topology) -> str:
    """The whole file."""
    found = sections(topology)
    compared = any(section.compared for section in found)
    wide = 2 * _MARGIN + 2 * _BAND + (2 * _COLUMN + _GUTTER if compared else _COLUMN)
    drawing = _Drawing(wide)
    drawing.head(topology)
    for section in found:
        drawing.section(section)
    drawing.legend()
    title, rest = heading(topology)
    said = [verdict(topology), *(plain(fault.sentence) for fault in topology.faults)]
    high = drawing.y + _MARGIN - 8
    inner = (
        element("title", escape(f"The network of {title}"), id="topology-title")
        + element("desc", escape(f"{rest}: {'; '.join(said)}."), id="topology-description")
        + element("style", ink.style_sheet())
        + element("rect", x=0.0, y=0.0, width=wide, height=high, rx=10.0, class_="paper")
        + "\n"
        + "\n".join(drawing.parts)
        + "\n"
    )
    return (
        element(
            "svg",
            inner,
            xmlns="http://www.w3.org/2000/svg",
            width=wide,
            height=high,
            viewBox=f"0 0 {ink.number(wide)} {ink.number(high)}",
            role="img",
            aria_labelledby="topology-title topology-description",
        )
        + "\n"
    )


class _Placed(NamedTuple):
    """A card with its place, and the wire that leads on from it."""

    x: float
    top: float
    bottom: float
    card: Card
    wire: Wire | None


class _Drawing:
    """Parts of the picture from top to bottom; `y` is how far it has got."""

    def __init__(self, wide: float) -> None:
        self.parts: list[str] = []
        self.y = _MARGIN
        self._wide = wide
        self._inner = wide - 2 * _MARGIN

    def head(self, topology: Topology) -> None:
        title, rest = heading(topology)
        said = verdict(topology)
        room = self._inner - ink.pill_width(said) - 16
        style = "bad" if topology.faults else "good" if topology.plumbed else "quiet"
        self.parts.append(ink.pill(self._wide - _MARGIN, self.y + 13, said, style))
        for line in fold(title, ink.cells(room, "title")):
            self.y += 20
            self.parts.append(text(_MARGIN, self.y, line, "title"))
            self.y += 6
        for line in fold(rest, ink.cells(self._inner)):
            self.y += 14
            self.parts.append(text(_MARGIN, self.y, line, style="quiet"))
            self.y += 4
        self.y += 12
        for number, fault in enumerate(topology.faults, 1):
            self._complaint(number, fault)
        for note in topology.notes:
            for line in fold(f"note: {plain(note)}", ink.cells(self._inner)):
                self.y += 14
                self.parts.append(text(_MARGIN, self.y, line, style="quiet"))
                self.y += 3
        self.y += 4

    def _complaint(self, number: int, fault: Fault) -> None:
        word = f"fault {number}"
        left = _MARGIN + 12 + ink.pill_width(word) + 12
        room = ink.cells(_MARGIN + self._inner - 12 - left)
        sentence = fold(plain(fault.sentence), room)
        remedy = fold(f"to do: {plain(fault.remedy)}", room) if fault.remedy else []
        high = 12 + 17 * (len(sentence) + len(remedy))
        box = element("rect", x=_MARGIN, y=self.y, width=self._inner, height=high, rx=6.0, class_="complaint")
        lines = [
            text(left, self.y + 18 + 17 * position, line, style="strong" if position < len(sentence) else "quiet")
            for position, line in enumerate((*sentence, *remedy))
        ]
        mark = ink.pill(left - 12, self.y + 14, word, "bad")
        self.parts.append(element("g", box + "".join(lines) + mark, class_="box"))
        self.y += high + 6

    def section(self, section: Section) -> None:
        self.y += 26
        self.parts.append(text(_MARGIN, self.y, section.title, "name"))
        columns = [_MARGIN + _BAND]
        names = [NOW]
        if section.compared:
            columns.append(_MARGIN + _BAND + _COLUMN + _GUTTER)
            names.insert(0, BEFORE)
        self.y += 24
        for x, name in zip(columns, names, strict=True):
            self.parts.append(text(x, self.y, name, "text", "quiet strong"))
        self.y += 10
        placed: list[list[_Placed]] = [[] for _ in columns]
        bands: list[str] = []
        for _, rows in itertools.groupby(section.rows, lambda row: row.place):
            bands.append(self._band(list(rows), columns, placed))
        wires = [part for column in placed for part in _wires(column)]
        cards = [_card(each, section.identity) for column in placed for each in column]
        self.parts += [*bands, *wires, *cards]

    def _band(self, rows: Sequence[Row], columns: Sequence[float], placed: list[list[_Placed]]) -> str:
        """Give each card of one place its own, and draw the band behind them."""
        top = self.y
        self.y += _TOP
        for row in rows:
            cells = (row.before, row.now) if len(columns) == 2 else (row.now,)
            high = max((_height(cell.card) for cell in cells if cell.card is not None), default=0.0)
            for x, cell, column in zip(columns, cells, placed, strict=True):
                if cell.card is not None:
                    # What nothing leads to stands at the foot, so that the way on from there is short.
                    upper = self.y if column else self.y + high - _height(cell.card)
                    column.append(_Placed(x, upper, upper + _height(cell.card), cell.card, cell.wire))
            self.y += high + max(_length(cell) for cell in cells)
        self.y += _BOTTOM
        place: Place = rows[0].place
        band = element(
            "rect", x=_MARGIN, y=top, width=self._inner, height=self.y - top, rx=10.0, class_=f"band {place}"
        )
        label = text(_MARGIN + _BAND, top + 22, PLACES[place].upper(), "small", "quiet strong")
        self.y += _BETWEEN
        empty = [
            text(x + _COLUMN / 2, (top + self.y - _BETWEEN) / 2 + 4, "no guest yet", style="quiet", anchor="middle")
            for x, column in zip(columns, placed, strict=True)
            if place == "guest" and not column
        ]
        return element("g", band + label + "".join(empty), class_="place")

    def legend(self) -> None:
        self.y += 16
        x = _MARGIN
        for owner, words in _LEGEND:
            self.parts.append(
                element("rect", x=x, y=self.y - 10, width=12.0, height=12.0, rx=3.0, class_=f"strip frame {owner}")
            )
            self.parts.append(text(x + 18, self.y, words, "small", "quiet"))
            x += 18 + ink.width(words, "small") + 22
        self.y += 10


def _value_room(line: Line) -> int:
    taken = ink.pill_width(_word(line.faults)) + 8 if line.faults else 0.0
    return ink.cells(_COLUMN - 2 * _PADDING - _NAME - taken)


def _word(faults: tuple[int, ...]) -> str:
    return f"fault {', '.join(map(str, faults))}"


def _title(card: Card) -> list[str]:
    return fold(card.title, ink.cells(_COLUMN - 2 * _PADDING - ink.width(card.owner, "small") - 10, "name"))


def _kind_fits(card: Card) -> bool:
    title = _title(card)
    taken = ink.width(title[0], "name") + 10 + ink.width(card.kind) + 12 + ink.width(card.owner, "small")
    return len(title) == 1 and taken <= _COLUMN - 2 * _PADDING


def _lines(card: Card) -> Iterator[tuple[Line, list[str]]]:
    lines = card.lines
    if card.kind and card.kind != card.title and not _kind_fits(card):
        lines = (Line("driver", card.kind), *lines)
    return ((line, fold(line.value, _value_room(line))) for line in lines)


def _height(card: Card) -> float:
    header = _HEADER + 17 * (len(_title(card)) - 1)
    return header + 8 + _LINE * sum(len(folded) for _, folded in _lines(card)) + (4 if card.lines else 0)


def _words(wire: Wire) -> list[str]:
    taken = ink.pill_width(_word(wire.faults)) + 8 if wire.faults else 0.0
    return fold(wire.words, ink.cells(_COLUMN / 2 - 22 - taken, "small"))


def _length(cell: Cell) -> float:
    """Of the way below a card to the next one."""
    return _WIRE + _WORDS * len(_words(cell.wire)) if cell.wire is not None else 0.0


def _card(placed: _Placed, identity: tuple[str, ...]) -> str:
    x, y, _, card, _ = placed
    owner = _OWNERS[card.element.owner]
    title = _title(card)
    header = _HEADER + 17 * (len(title) - 1)
    frame = element(
        "rect", x=x, y=y, width=_COLUMN, height=_height(card), rx=8.0,
        class_=f"frame {owner}{' bad' if card.faults else ''}",
    )  # fmt: skip
    strip = element(
        "path",
        d=f"M{ink.number(x + 1)} {ink.number(y + header)}v{ink.number(8 - header)}q0 -7 7 -7"
        f"h{ink.number(_COLUMN - 16)}q7 0 7 7v{ink.number(header - 8)}z",
        class_=f"strip {owner}",
    )
    parts = [frame, strip]
    parts += [text(x + _PADDING, y + 19 + 17 * row, line, "name", owner) for row, line in enumerate(title)]
    if card.kind and card.kind != card.title and _kind_fits(card):
        parts.append(text(x + _PADDING + ink.width(title[0], "name") + 10, y + 19, card.kind, style="quiet"))
    parts.append(text(x + _COLUMN - _PADDING, y + 19, card.owner, "small", "quiet", "end"))
    y += header + 6
    for line, folded in _lines(card):
        bad = "bad" if line.faults else ""
        if bad:
            parts.append(
                element(
                    "rect", x=x + 6, y=y - 1, width=_COLUMN - 12, height=_LINE * len(folded), rx=4.0, class_="bad-tint"
                )
            )
            parts.append(ink.pill(x + _COLUMN - _PADDING, y + 8, _word(line.faults), "bad"))
        y += _LINE
        if line.name:
            parts.append(text(x + _PADDING, y - 5, line.name, style=bad or "quiet"))
        for position, value in enumerate(folded):
            y += _LINE if position else 0
            style = f"{bad} strong" if bad else ""
            parts.append(ink.rich_text(x + _PADDING + _NAME, y - 5, pieces(value, identity), style))
    return element("g", "".join(parts), class_="box")


def _wires(column: Sequence[_Placed]) -> Iterator[str]:
    for upper, lower in itertools.pairwise(column):
        if upper.wire is not None:
            yield _wire(upper.x + _COLUMN / 2, upper.bottom, lower.top, upper.wire)


def _wire(x: float, top: float, bottom: float, wire: Wire) -> str:
    bad = " bad" if wire.faults or not wire.whole else ""
    if wire.two_ways:
        parts = [_arrow(x - 6, bottom, top, bad), _arrow(x + 6, top, bottom, bad)]
    else:
        parts = [element("line", x1=x, y1=top, x2=x, y2=bottom, class_=f"wire{bad}")]
        parts += [element("circle", cx=x, cy=y, r=4.0, class_=f"end{bad}") for y in (top, bottom)]
    if not wire.whole:
        middle = (top + bottom) / 2
        parts += [
            element("line", x1=x - 7, y1=middle - sign * 7, x2=x + 7, y2=middle + sign * 7, class_="cross")
            for sign in (1, -1)
        ]
    y = top + 21
    words = _words(wire)
    for line in words:
        parts.append(text(x + 16, y, line, "small", "bad strong" if bad else "quiet"))
        y += _WORDS
    if wire.faults:
        word = _word(wire.faults)
        right = x + 16 + max(ink.width(line, "small") for line in words) + 8 + ink.pill_width(word)
        parts.append(ink.pill(right, top + 17, word, "bad"))
    return element("g", "".join(parts), class_="joint")


def _arrow(x: float, start: float, end: float, bad: str) -> str:
    """One way of two, with its head at `end`."""
    back = 7 if end > start else -7
    line = element("line", x1=x, y1=start, x2=x, y2=end - back, class_=f"wire{bad}")
    head = f"M{ink.number(x)} {ink.number(end)}l-4.5 {-back}h9z"
    return line + element("path", d=head, class_=f"end{bad}")
