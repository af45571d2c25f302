"""A topology as SVG: well-formed, the same bytes each time, and nothing in it but what was meant.

Whether it fits is a browser's to say: tests/integration/test_pictures.py.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from shim.cli.topology import ink, svg
from shim.network.topology.model import Pod, Topology
from tests.unit.cli.topology.pictures import PICTURES, broken
from tests.unit.network.topology import made_up
from tests.unit.network.topology.made_up import replaced
from tests.unit.network.topology.test_faults import BROKEN

_SVG = "{http://www.w3.org/2000/svg}"


def parsed(topology: Topology) -> ElementTree.Element:
    return ElementTree.fromstring(svg.draw(topology))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(f"{_SVG}text")]


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_well_formed_and_the_same_each_time(name: str) -> None:
    assert svg.draw(PICTURES[name]()) == svg.draw(PICTURES[name]())
    root = parsed(PICTURES[name]())
    assert root.tag == f"{_SVG}svg" and root.get("role") == "img"
    assert {each.tag.removeprefix(_SVG) for each in root.iter()} <= {
        "svg", "title", "desc", "style", "g", "rect", "path", "line", "circle", "text", "tspan",
    }  # fmt: skip


def test_it_needs_nothing_from_anywhere() -> None:
    drawn = svg.draw(broken())
    assert re.findall(r"https?://[^\"'<]*", drawn) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in drawn and "@import" not in drawn and "<script" not in drawn


def test_who_cannot_see_it_is_told() -> None:
    root = parsed(broken())
    title, description = root.find(f"{_SVG}title"), root.find(f"{_SVG}desc")
    assert title is not None and description is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == "The network of default/web"
    assert description.text is not None and all(fault.sentence in description.text for fault in broken().faults)


def test_each_fault_is_marked_by_a_word() -> None:
    found = texts(parsed(broken()))
    for number in (1, 2, 3):
        assert found.count(f"fault {number}") == 2  # in the list, and where it is
    assert "3 faults" in found


@pytest.mark.parametrize("code", BROKEN)
def test_each_fault_that_there_can_be_is_marked_where_it_is(code: str) -> None:
    assert texts(parsed(BROKEN[code].made().topology())).count("fault 1") == 2


def test_both_colour_schemes() -> None:
    drawn = svg.draw(broken())
    style = re.search("<style>(.*?)</style>", drawn)
    assert style is not None and "@media(prefers-color-scheme:dark)" in style[1]
    used, given = set(re.findall(r"var\(--([a-z-]+)\)", style[1])), re.findall(r"svg\{([^}]*)\}", style[1])
    assert len(given) == 2
    for scheme in given:
        assert {part.partition(":")[0].removeprefix("--") for part in scheme.split(";")} == used


@pytest.mark.parametrize(
    "hostile", ['<script>alert("1")</script>', "a&b", "x\x00\x1b[0m", "\ud800", "]]>", "'\"", "‮evil"]
)
def test_hostile_names_are_words_and_nothing_else(hostile: str) -> None:
    made = made_up.bridged("mirror").with_link("tap0", name=hostile)
    root = parsed(replaced(made.topology(), pod=Pod(namespace="default", name=hostile), notes=(hostile,)))
    assert not list(root.iter(f"{_SVG}script"))
    shown = " ".join(texts(root))
    assert "tap0" in shown and not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", shown)


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it, of an sRGB colour in hexadecimal."""
    parts = [int(colour[position : position + 2], 16) / 255 for position in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


#: What stands on what.
_ON = {
    "ink": ("paper", "card", "bad-tint"),
    "quiet": (
        "paper",
        "card",
        "bad-tint",
        "guest-band",
        "pod-band",
        "node-band",
        "guest-tint",
        "cni-tint",
        "shim-tint",
    ),
    "bad": ("card", "bad-tint", "pod-band", "node-band"),
    "guest": ("card", "guest-tint"),
    "shim": ("shim-tint",),
    "cni": ("cni-tint",),
    "node": ("node-tint",),
    "on-bad": ("bad", "good", "quiet"),
}


@pytest.mark.parametrize("colours", [ink.LIGHT, ink.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("text", _ON)
def test_texts_can_be_read(colours: dict[str, str], text: str) -> None:
    """The contrast that WCAG 2.2 asks for of small text (1.4.3): 4.5 to 1."""
    for ground in _ON[text]:
        bright, dim = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{text} on {ground}"
