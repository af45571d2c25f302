"""What a drawing says and in which order, whoever draws it. Pure.

A topology becomes *sections*, one for each interface. A section is a grid: a row for each element on the way from the
guest to the router, as it was in one column and as it is in the other, so that what did not change stands side by side.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shim.cli.terminal import plain
from shim.network.topology.model import Chain, Element, Fault, Joint, Owner, Place, Topology
from shim.sandbox.identifiers import SHOWN

_OWNERS: dict[Owner, str] = {
    "guest": "the guest's",
    "shim": "the shim's",
    "cni": "the CNI plugin's",
    "node": "the node's",
    "pod": "the pod's",
    "unknown": "somebody's",
}
#: What each place is called.
PLACES: dict[Place, str] = {"guest": "the guest", "pod": "the pod's namespace", "node": "the node"}
#: The two columns.
BEFORE, NOW = "before, as the CNI plugin left it", "now, as the kernel has it"


class Line(NamedTuple):
    """One line of a card: a name of a word or two, a value, and the numbers of the faults that it shows."""

    name: str
    value: str
    faults: tuple[int, ...] = ()


class Card(NamedTuple):
    """One element: its title, its driver, whose it is in words, and its lines."""

    element: Element
    title: str
    kind: str
    owner: str
    lines: tuple[Line, ...]

    @property
    def faults(self) -> tuple[int, ...]:
        """The numbers of all faults that it shows."""
        return tuple(sorted({number for line in self.lines for number in line.faults}))


class Wire(NamedTuple):
    """One joint: how, whether frames pass, whether each way has something of its own that hands them on, and the
    numbers of its faults."""

    words: str
    whole: bool
    two_ways: bool = False
    faults: tuple[int, ...] = ()


class Cell(NamedTuple):
    """One place of the grid: a card, and the wire that leads on from it, each None where there is none."""

    card: Card | None = None
    wire: Wire | None = None


class Row(NamedTuple):
    """One row of the grid, and where its elements are."""

    place: Place
    before: Cell
    now: Cell


class Section(NamedTuple):
    """One interface. Without `compared` there is but one column, `now`. `identity` is by what the network knows the
    guest: its MAC and its addresses, wherever they stand."""

    title: str
    compared: bool
    identity: tuple[str, ...]
    rows: tuple[Row, ...]


def heading(topology: Topology) -> tuple[str, str]:
    """What it is of: in a word or two, and the rest."""
    short = plain(topology.id[:SHOWN])
    if topology.pod.name:
        return plain(f"{topology.pod.namespace}/{topology.pod.name}"), f"sandbox {short} in {plain(topology.netns)}"
    return plain(topology.netns), f"plumbed for sandbox {short}" if short else "not plumbed"


def verdict(topology: Topology) -> str:
    """The sum, in a few words."""
    if not topology.faults:
        return "nothing is wrong" if topology.plumbed else "no unikernel in it"
    return "1 fault" if len(topology.faults) == 1 else f"{len(topology.faults)} faults"


def sections(topology: Topology) -> tuple[Section, ...]:
    """One for each interface, in the guest's order."""
    before = {chain.nic: chain for chain in topology.before}
    return tuple(_section(chain, before.get(chain.nic), topology.faults) for chain in topology.now)


def _section(now: Chain, before: Chain | None, faults: Sequence[Fault]) -> Section:
    title = plain(now.nic) + (f", dataplane {now.dataplane}" if now.dataplane else "")
    right = dict(_cells(now, faults))
    left = dict(_cells(before, ())) if before is not None else {}
    roles = list(right)
    places = {_role(element): element.place for element in now.elements}
    if "stack" in left:
        # The pod's own stack stood where the guest's way now ends: right above the interface.
        above = roles[roles.index("interface") - 1] if "interface" in roles else roles[-1]
        left[above] = left.pop("stack")
    rows = tuple(Row(places[role], left.get(role, Cell()), right[role]) for role in roles)
    return Section(title, before is not None, _identity(now), rows)


def _identity(chain: Chain) -> tuple[str, ...]:
    guest = next((element for element in chain.elements if element.sort == "guest"), None)
    if guest is None:
        return ()
    return tuple(filter(None, (guest.mac, *(address.partition("/")[0] for address in guest.addresses))))


def pieces(value: str, identity: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """`value` in pieces, and whether each is of the guest's identity."""
    if not identity:
        yield value, False
        return
    alternatives = "|".join(re.escape(word) for word in identity)
    for position, piece in enumerate(re.split(rf"(?<![\w.:])({alternatives})(?![\w:]|\.\d)", value)):
        if piece:
            yield piece, position % 2 == 1


def _role(element: Element) -> str:
    return element.id.rpartition(":")[2]


def _cells(chain: Chain, faults: Sequence[Fault]) -> Iterator[tuple[str, Cell]]:
    wires = {joint.upper: _wire(joint, faults) for joint in chain.joints}
    for element in chain.elements:
        yield _role(element), Cell(_card(element, faults), wires.get(element.id))


def _wire(joint: Joint, faults: Sequence[Fault]) -> Wire:
    numbers = tuple(number for number, fault in enumerate(faults, 1) if fault.at == joint.id)
    return Wire(joint.words, joint.whole, joint.sort == "redirect", numbers)


def _card(element: Element, faults: Sequence[Fault]) -> Card:
    here = {number: fault for number, fault in enumerate(faults, 1) if fault.at == element.id}
    lines: list[Line] = []
    for draft in _lines(element, any(fault.field == "state" for fault in here.values())):
        shown = tuple(number for number, fault in here.items() if draft.shows(fault))
        lines.append(Line(draft.name, plain(draft.value), shown))
    shown_somewhere = {number for line in lines for number in line.faults}
    for number, fault in here.items():
        if number not in shown_somewhere:
            lines.append(Line("wrong", plain(fault.code.replace("-", " ")), (number,)))
    if element.sort == "guest":
        return Card(element, "the guest", "", _OWNERS[element.owner], tuple(lines))
    return Card(element, plain(element.name), plain(element.kind), _OWNERS[element.owner], tuple(lines))


class _Draft(NamedTuple):
    """A line to be: the field that it is of, and by which value a fault would name it."""

    field: str
    name: str
    value: str
    key: str = ""

    def shows(self, fault: Fault) -> bool:
        """Whether the fault is about this line."""
        return fault.field == self.field and fault.value in ("", self.key)


def _lines(element: Element, state_is_wrong: bool) -> Iterator[_Draft]:
    if element.state and (element.state != "up" or state_is_wrong):
        yield _Draft("state", "state", element.state)
    if element.sort == "guest" and element.kind:
        yield _Draft("kind", "monitor", element.kind)
    if element.mac:
        yield _Draft("mac", "MAC", element.mac)
    if element.mtu:
        yield _Draft("mtu", "MTU", str(element.mtu))
    yield from (_Draft("addresses", "address", address, address) for address in element.addresses)
    yield from (_Draft("gateways", "gateway", gateway, gateway) for gateway in element.gateways)
    if element.router:
        yield _Draft("router", "router", f"a virtual one, {element.router}")
        yield from (_Draft("next_hops", "next hop", hop, hop) for hop in element.next_hops)
    yield from (_Draft("routes", "route", route, route) for route in element.routes)
    yield from (_Draft("dns", "DNS", server, server) for server in element.dns)
    for entry in element.neighbours:
        value = f"{entry.address} is {entry.mac or 'unknown'} ({entry.state})"
        yield _Draft("neighbours", "neighbour", value, entry.address)
    for learned in element.learned:
        yield _Draft("learned", "learned", f"{learned.mac} behind {learned.port}", learned.mac)
    for program in element.programs:
        does = f": {program.does}" if program.does else ""
        value = f"{program.name}{'' if program.there else ' is missing'}{does}"
        yield _Draft("programs", program.place, value, f"{program.place} {program.name}")
    yield from (_Draft("words", "", words, words) for words in element.words)


def width_of(text: str) -> int:
    """How many cells of a fixed-width font it takes at most."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fold(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells: broken at spaces, and within a word only where it is longer than that.
    At least one line."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(lines[-1]) + 1 + width_of(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _pieces(word, width)
    return lines or [""]


def _pieces(word: str, width: int) -> Iterator[str]:
    piece = ""
    for char in word:
        if piece and width_of(piece + char) > width:
            yield piece
            piece = ""
        piece += char
    yield piece
