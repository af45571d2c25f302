"""How SVG is written: elements, texts that fit, and the style sheet. Pure; the same calls give the same bytes.

Nothing is loaded from anywhere: fonts are the viewer's own, of fixed width, and measured as the widest of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from shim.cli.topology.captions import width_of

#: The advance of a fixed-width font's characters, as a part of its size: no font of the list below has more than 0.62.
ADVANCE: Final = 0.63
#: The size of each class of text in pixels.
SIZES: Final = {"title": 20, "head": 13, "name": 13, "text": 12, "small": 11}

LIGHT: Final = {
    "paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "card": "#ffffff", "line": "#8c959f",
    "guest": "#6f42c1", "guest-tint": "#f4effc", "shim": "#0a6c74", "shim-tint": "#e3f4f4",
    "cni": "#0757b5", "cni-tint": "#e6f0fb", "node": "#57606a", "node-tint": "#eef0f2",
    "guest-band": "#faf7ff", "pod-band": "#f5f9fe", "node-band": "#f6f8fa",
    "bad": "#c21c2c", "bad-tint": "#ffeceb", "good": "#1a7f37", "on-bad": "#ffffff",
}  # fmt: skip
DARK: Final = {
    "paper": "#0d1117", "ink": "#e6edf3", "quiet": "#9ea7b1", "card": "#161b22", "line": "#6e7681",
    "guest": "#c4a7f5", "guest-tint": "#2a2140", "shim": "#5cc8cf", "shim-tint": "#12333a",
    "cni": "#79b8ff", "cni-tint": "#152d4a", "node": "#b1bac4", "node-tint": "#262c34",
    "guest-band": "#15111f", "pod-band": "#0f1722", "node-band": "#13171d",
    "bad": "#ff7b72", "bad-tint": "#3c1618", "good": "#56d364", "on-bad": "#2a0b0d",
}  # fmt: skip


def width(text: str, kind: str = "text") -> float:
    """How wide a text is at most, in pixels."""
    return width_of(text) * SIZES[kind] * ADVANCE


def cells(pixels: float, kind: str = "text") -> int:
    """How many characters there is room for."""
    return int(pixels / (SIZES[kind] * ADVANCE))


def number(value: float) -> str:
    """A coordinate: whole where it is whole."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, inner: str = "", **attributes: str | float) -> str:
    """One element. An attribute's name may have underscores for hyphens, and one at its end."""
    words = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(value if isinstance(value, str) else number(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{words}>{inner}</{name}>" if inner else f"<{name}{words}/>"


def text(x: float, y: float, words: str, kind: str = "text", style: str = "", anchor: str = "start") -> str:
    """One line of text with its baseline at `y`; `style` are further classes."""
    more = {} if anchor == "start" else {"text_anchor": anchor}
    return element("text", escape(words), x=x, y=y, class_=f"{kind} {style}".strip(), **more)


def rich_text(x: float, y: float, pieces: Iterable[tuple[str, bool]], style: str = "") -> str:
    """One line of text of which some pieces stand out."""
    inner = "".join(
        element("tspan", escape(words), class_="own") if stands_out else escape(words) for words, stands_out in pieces
    )
    return element("text", inner, x=x, y=y, class_=f"text {style}".strip())


def pill(right: float, middle: float, words: str, style: str) -> str:
    """A short word in a filled, rounded box that ends at `right`."""
    wide, high = width(words, "small") + 14, 16.0
    box = element("rect", x=right - wide, y=middle - high / 2, width=wide, height=high, rx=8.0, class_=f"fill-{style}")
    inside = text(right - wide / 2, middle + 4, words, "small", "on-bad strong", "middle")
    return element("g", box + inside, class_="pill")


def pill_width(words: str) -> float:
    """How much room a pill takes."""
    return width(words, "small") + 14


def style_sheet() -> str:
    """All styles, for a light background and for a dark one."""
    stack = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace'
    rules = [f"text{{font-family:{stack};fill:var(--ink);white-space:pre}}"]
    rules += [f".{kind}{{font-size:{size}px}}" for kind, size in SIZES.items()]
    rules += [
        ".strong,.title,.head,.name,.own{font-weight:700}",
        ".band{stroke-width:1}.paper{fill:var(--paper)}",
        ".frame{fill:var(--card);stroke-width:1.5}",
        ".wire{stroke:var(--line);stroke-width:2;fill:none}.end{fill:var(--line)}.end.bad{fill:var(--bad)}",
        ".wire.bad{stroke:var(--bad);stroke-dasharray:5 4}",
        ".cross{stroke:var(--bad);stroke-width:3;stroke-linecap:round}",
        "text.quiet{fill:var(--quiet)}text.bad{fill:var(--bad)}text.on-bad{fill:var(--on-bad)}",
        ".own{fill:var(--guest)}.bad .own{fill:var(--bad)}",
        ".fill-bad{fill:var(--bad)}.fill-good{fill:var(--good)}.fill-quiet{fill:var(--quiet)}",
        ".bad-tint{fill:var(--bad-tint)}.complaint{fill:var(--bad-tint);stroke:var(--bad);stroke-width:1}",
    ]
    rules += [
        f".frame.{owner}{{stroke:var(--{owner})}}.strip.{owner}{{fill:var(--{owner}-tint)}}"
        f"text.{owner}{{fill:var(--{owner})}}"
        for owner in ("guest", "shim", "cni", "node")
    ]
    rules.append(".frame.bad{stroke:var(--bad);stroke-width:2.5}")
    rules += [f".band.{place}{{fill:var(--{place}-band);stroke:var(--{tint}-tint)}}" for place, tint in _BANDS.items()]
    light, dark = (";".join(f"--{name}:{value}" for name, value in each.items()) for each in (LIGHT, DARK))
    return f"svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}" + "".join(rules)


_BANDS: Final = {"guest": "guest", "pod": "cni", "node": "node"}
