"""docs/support.md is the table that decides, word for word."""

from __future__ import annotations

from pathlib import Path

from shim.guests.registry import guests
from shim.oci.support import GUESTS, MONITORS, Known, known, monitors_of

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "support.md"


def _tables() -> list[list[list[str]]]:
    """The page's tables: rows of cells, without the line below each heading."""
    tables: list[list[list[str]]] = [[]]
    for line in _PAGE.read_text().splitlines():
        if not line.startswith("|"):
            tables.append([])
        elif not line.startswith("|---"):
            tables[-1].append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return [table for table in tables if table]


def test_the_page_is_the_table() -> None:
    heading, *rows = _tables()[0]
    assert heading == ["guest", *MONITORS]
    assert rows == [[guest, *(known(guest, monitor) for monitor in MONITORS)] for guest in GUESTS]


def test_every_word_is_explained() -> None:
    _, *rows = _tables()[1]
    assert [word for word, _ in rows] == list(Known)


def test_every_guest_runs_on_something() -> None:
    for guest in GUESTS:
        assert monitors_of(guest)
        assert set(monitors_of(guest)) <= set(MONITORS)
        assert Known.NO not in {known(guest, monitor) for monitor in monitors_of(guest)}


def test_every_guest_that_there_is_is_in_the_table() -> None:
    assert set(guests()) <= set(GUESTS)
