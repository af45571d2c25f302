"""A topology as a real browser shows it: every text is within its box, nothing lies on anything else, and there is
something to be seen.

The browser is started once, on a page with every picture in it, which measures itself and leaves what it finds in its
own text. It measures twice: as the machine's font is, and stretched to the widest that the pictures are made for.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shim.cli.topology import ink, svg
from shim.network.topology.model import Pod, Topology
from tests.integration import paths
from tests.unit.cli.topology.pictures import PICTURES
from tests.unit.network.topology import made_up
from tests.unit.network.topology.made_up import replaced
from tests.unit.network.topology.test_faults import BROKEN

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=960,1600",
)  # fmt: skip

_MEASURE = """
const edges = (element) => element.getBoundingClientRect();
const clear = (a, b) => a.right <= b.left + 1 || a.bottom <= b.top + 1;
const apart = (a, b) => clear(a, b) || clear(b, a);
const within = (a, b) =>
  a.left >= b.left - 0.5 && a.right <= b.right + 0.5 && a.top >= b.top - 0.5 && a.bottom <= b.bottom + 0.5;
function measure(picture) {
  const complaints = [];
  const boxes = [...picture.querySelectorAll("g.box")].map((box) => [box, edges(box.querySelector("rect"))]);
  const texts = [...picture.querySelectorAll("text")].map((text) => [text, edges(text)]);
  for (const [text, own] of texts) {
    const holder = text.closest("g.pill") || text.closest("g.box") || text.closest("g.place");
    const room = holder ? edges(holder.querySelector("rect")) : edges(picture);
    if (!within(own, room)) complaints.push("leaves its box: " + text.textContent);
    if (!own.width) complaints.push("is not shown: " + text.textContent);
    for (const [box, its] of boxes)
      if (!box.contains(text) && !apart(own, its)) complaints.push("lies on a box: " + text.textContent);
  }
  for (const [index, [text, own]] of texts.entries())
    for (const [other, its] of texts.slice(index + 1))
      if (!apart(own, its)) complaints.push("lies on another: " + text.textContent + " / " + other.textContent);
  for (const [index, [, own]] of boxes.entries())
    for (const [, its] of boxes.slice(index + 1)) if (!apart(own, its)) complaints.push("boxes lie on each other");
  for (const pill of picture.querySelectorAll("g.pill rect"))
    for (const [text, its] of texts)
      if (!text.parentNode.isSameNode(pill.parentNode) && !apart(edges(pill), its))
        complaints.push("lies on a mark: " + text.textContent);
  return { texts: texts.length, boxes: boxes.length, complaints };
}
const found = {};
for (const pass of ["as it is", "stretched"]) {
  found[pass] = {};
  for (const picture of document.querySelectorAll("div.picture svg"))
    found[pass][picture.parentNode.id] = measure(picture);
  const probe = document.querySelector("svg text.text");
  const size = parseFloat(getComputedStyle(probe).fontSize);
  const advance = probe.getComputedTextLength() / probe.textContent.length / size;
  const style = document.createElement("style");
  style.textContent = `text{letter-spacing:${WIDEST - advance}em}`;
  document.body.append(style);
  found[pass].advance = advance;
}
document.getElementById("found").textContent = JSON.stringify(found);
"""


class Shown(NamedTuple):
    """What the page found out of its pictures in each pass, and what it looks like."""

    found: Mapping[str, Mapping[str, Any]]
    screenshot: bytes


def hostile() -> Topology:
    """Names as long as a kernel has them and longer, some as wide as a font has them, some that are none."""
    made = made_up.dual_stack("bridge").with_link("tap0", name="</text>" * 9, kind="abcdefghijklmno")
    made = made.with_link("br0", name="\x1b" * 15, kind="x" * 64)
    found = made.with_address("eth0", "fd00:88:1111:2222:3333:4444:5555:6666/128").topology()
    pod = Pod(namespace="n" * 80, name="網路" * 30)
    return replaced(found, pod=pod, netns="/" + "x" * 300, notes=("note " * 80, "w" * 400))


CASES = {**PICTURES, **{f"fault {code}": broken.made().topology for code, broken in BROKEN.items()}, "hostile": hostile}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    directory = tmp_path_factory.mktemp("browser")
    page, picture = directory / "page.html", directory / "page.png"
    drawn = "\n".join(f'<div class="picture" id="{name}">{svg.draw(made())}</div>' for name, made in CASES.items())
    script = f"const WIDEST = {ink.ADVANCE};\n{_MEASURE}"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{drawn}<pre id="found"></pre><script>{script}</script></body>'
    )
    argv = [paths.program("chromium"), *_OPTIONS, f"--user-data-dir={directory / 'profile'}"]
    argv += ["--dump-dom", f"--screenshot={picture}", page.as_uri()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    dumped = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert done.returncode == 0 and dumped is not None, done.stderr
    yield Shown(json.loads(unescape(dumped[1])), picture.read_bytes())


@pytest.mark.parametrize("which", ["as it is", "stretched"])
@pytest.mark.parametrize("case", CASES)
def test_every_text_is_in_its_box_and_nothing_lies_on_anything(shown: Shown, case: str, which: str) -> None:
    found = shown.found[which][case]
    assert found["complaints"] == []
    assert found["texts"] > 20 and found["boxes"] >= 4


def test_the_measure_is_that_of_the_widest_font(shown: Shown) -> None:
    assert shown.found["as it is"]["advance"] <= ink.ADVANCE
    assert shown.found["stretched"]["advance"] == pytest.approx(ink.ADVANCE, abs=0.005)


def test_there_is_something_to_be_seen(shown: Shown) -> None:
    """Most rows of the screenshot differ from others, as those of a page with anything on it do."""
    width, height = struct.unpack(">II", shown.screenshot[16:24])
    assert (width, height) == (960, 1600)
    rows = list(scanlines(shown.screenshot, height))
    assert len(set(rows)) > height // 4


def scanlines(png: bytes, height: int) -> Iterator[bytes]:
    """The rows of a PNG (ISO/IEC 15948), filtered as they are in it."""
    data, offset = b"", 8
    while offset < len(png):
        length, kind = struct.unpack_from(">I4s", png, offset)
        if kind == b"IDAT":
            data += png[offset + 8 : offset + 8 + length]
        offset += 12 + length
    pixels = zlib.decompress(data)
    size = len(pixels) // height
    return (pixels[row * size : (row + 1) * size] for row in range(height))


def test_the_committed_pictures_are_those_that_were_shown() -> None:
    """What is measured here is what the documentation shows (tests/unit/cli/topology/test_pictures.py)."""
    for name, made in PICTURES.items():
        assert (Path(paths.ROOT) / "docs" / "pictures" / f"{name}.svg").read_text() == svg.draw(made())
