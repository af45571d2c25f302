"""A topology in characters: as wide as asked, with words for what colour underlines, and safe to print."""

from __future__ import annotations

import pytest

from shim.cli.topology import text
from shim.cli.topology.captions import fold, width_of
from shim.network.topology.model import Pod, Topology
from tests.unit.cli.topology.pictures import PICTURES, broken
from tests.unit.network.topology import made_up
from tests.unit.network.topology.made_up import replaced
from tests.unit.network.topology.test_faults import BROKEN


def drawn(topology: Topology, width: int = 100, pen: text.Pen = text.BOXES) -> str:
    return text.as_text(text.draw(topology, width, pen))


@pytest.mark.parametrize("width", [32, 40, 79, 80, 91, 120, 200])
@pytest.mark.parametrize("name", PICTURES)
def test_no_line_is_wider_than_asked_and_boxes_are_closed(name: str, width: int) -> None:
    lines = drawn(PICTURES[name](), width).splitlines()
    assert max(map(width_of, lines)) <= width
    for kind in "┌┐", "└┘":
        assert sum(line.count(kind[0]) for line in lines) == sum(line.count(kind[1]) for line in lines) > 0


@pytest.mark.parametrize(("width", "columns"), [(80, 1), (100, 2), (200, 2)])
def test_two_columns_where_there_is_room(width: int, columns: int) -> None:
    lines = drawn(PICTURES["bridge"](), width).splitlines()
    heads = [line for line in lines if line.startswith("before,")]
    assert len(heads) == 1 and ("now," in heads[0]) is (columns == 2)


@pytest.mark.parametrize("width", [40, 100])
def test_each_fault_is_in_words_at_the_top_and_where_it_is(width: int) -> None:
    found = drawn(broken(), width)
    head, _, picture = found.partition("\neth0, dataplane")
    assert "3 faults" in head and "to do: nsenter" in head
    for number in (1, 2, 3):
        assert f"fault {number}: " in head and f"◀ fault {number}" in picture


@pytest.mark.parametrize("code", BROKEN)
def test_each_fault_that_there_can_be_is_marked_where_it_is(code: str) -> None:
    head, _, picture = drawn(BROKEN[code].made().topology()).partition("\neth0, dataplane")
    assert "fault 1: " in head and picture.count("◀ fault 1") == 1


def test_ascii_where_the_terminal_has_nothing_else() -> None:
    assert text.pen_for("utf-8") is text.BOXES
    for encoding in ("ascii", "latin-1", "no such encoding"):
        assert text.pen_for(encoding) is text.ASCII
    assert drawn(broken(), pen=text.ASCII).isascii()


def test_what_a_terminal_would_obey_is_shown() -> None:
    made = made_up.bridged("mirror")
    hostile = made.with_link("tap0", name="\x1b[31mx\r\n").topology()
    found = drawn(replaced(hostile, pod=Pod(namespace="default", name="we\x07b\u202e"), notes=("\x1b]0;title\x07",)))
    assert "\\x1b[31mx\\r\\n" in found and "we\\x07b\\u202e" in found and "\x1b" not in found and "\x07" not in found


def test_wide_characters_keep_their_boxes() -> None:
    made = made_up.bridged("mirror").with_link("tap0", name="網路介面一二三")
    lines = drawn(made.topology(), 40).splitlines()
    assert {width_of(line) for line in lines if line[:1] in ("│", "┌", "└")} == {40}


def test_styles_are_for_a_terminal_and_say_nothing_alone() -> None:
    lines = text.draw(broken(), 100)
    styles = {span.style for line in lines for span in line}
    assert styles <= {"", "head", "quiet", "bad", "good"} and "bad" in styles
    assert text.styled(lines).plain == "\n".join("".join(span.text for span in line) for line in lines)


@pytest.mark.parametrize(
    ("words", "width", "lines"),
    [
        ("", 5, [""]),
        ("one two", 7, ["one two"]),
        ("one two", 6, ["one", "two"]),
        ("onetwothree x", 6, ["onetwo", "three", "x"]),
        ("a bcdefghij", 4, ["a", "bcde", "fghi", "j"]),
        ("網路網路", 4, ["網路", "網路"]),
    ],
)
def test_folding(words: str, width: int, lines: list[str]) -> None:
    assert fold(words, width) == lines
