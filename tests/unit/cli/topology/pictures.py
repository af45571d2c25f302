"""The pictures of the documentation, and the drawings that tests compare with, of pods that are made up by hand.

Run as a program (`make pictures`) it draws all of them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from shim.cli.topology import svg, text
from shim.network.kernel import rtnetlink as rt
from shim.network.topology.model import Topology
from tests.unit.network.topology import made_up

ROOT = Path(__file__).parents[4]
DIRECTORY = ROOT / "docs" / "pictures"
GOLDEN = Path(__file__).with_name("golden")


def broken() -> Topology:
    """A program removed, the address given back to eth0, and a router that knows another MAC."""
    made = made_up.routed("mirror").with_address("eth0", "10.1.2.3/32")
    made = made.with_neighbour("02:00:00:00:00:99", rt.NUD_PERMANENT)
    tap = made.link("tap0").index
    return made.with_seen(filters=tuple(each for each in made.seen.filters if each.link != tap)).topology()


PICTURES: dict[str, Callable[[], Topology]] = {
    "bridge": lambda: made_up.bridged("bridge").topology(),
    "slash32": lambda: made_up.routed("mirror").topology(),
    "macvtap": lambda: made_up.bridged("macvtap").topology(),
    "two-interfaces": lambda: made_up.two_nics("mirror").topology(),
    "broken": broken,
    "not-plumbed": lambda: made_up.not_plumbed().topology(plan=False),
}
#: Which of them are drawn in characters, how wide, and whether in box-drawing characters.
TEXTS = (
    ("bridge", 40, True),
    ("bridge", 200, True),
    ("slash32", 100, True),
    ("broken", 80, True),
    ("broken", 100, False),
)


def pictures() -> Iterator[tuple[Path, str]]:
    """Each file, and what is to be in it."""
    for name, topology in PICTURES.items():
        yield DIRECTORY / f"{name}.svg", svg.draw(topology())
    for name, width, boxes in TEXTS:
        drawn = text.draw(PICTURES[name](), width, text.BOXES if boxes else text.ASCII)
        yield GOLDEN / f"{name}-{width}{'' if boxes else '-ascii'}.txt", text.as_text(drawn)


def main() -> None:
    """Write all of them."""
    for path, content in pictures():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
