"""The pages that are read off the code: `python docs/generate.py` writes them, and a test holds them against it.

docs/configuration.md   every setting, from shim/config.py
contrib/config.toml     the same as a file to edit
docs/errors.md          every error and its remedy, from where each is raised
"""

from __future__ import annotations

import ast
import sys
import types
import typing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from shim import config, errors  # noqa: E402 - found by the line above where this is run as a program

_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ShimError) and kind is not errors.ShimError
}
_GAP = "…"


class Setting(NamedTuple):
    """One key of the configuration: its table ("" for none), what it may be, its default as TOML, and what it says."""

    table: str
    key: str
    kind: str
    default: str
    text: str


def settings(section: type[msgspec.Struct] = config.Config, value: Any = None, table: str = "") -> Iterator[Setting]:
    """Every setting, in the order of the code; a table's own keys before the tables in it."""
    value = value if value is not None else section()
    hints = typing.get_type_hints(section, include_extras=True)
    inner: list[tuple[type[msgspec.Struct], Any, str]] = []
    for field in msgspec.structs.fields(section):
        hint, here = hints[field.name], getattr(value, field.name)
        if isinstance(here, msgspec.Struct):
            inner.append((type(here), here, f"{table}.{field.encode_name}".lstrip(".")))
            continue
        assert typing.get_origin(hint) is Annotated, f"{section.__name__}.{field.name} has no description"
        plain, meta = typing.get_args(hint)
        yield Setting(table, field.encode_name, _kind(plain), _toml(here), meta.description)
    for kind, here, name in inner:
        yield from settings(kind, here, name)


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if isinstance(hint, types.UnionType):
        return " or ".join(_kind(each) for each in typing.get_args(hint))
    return {int: "whole number", float: "number", bool: "`true`, `false`"}.get(hint, "text")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def configuration_page() -> str:
    """docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        f"One TOML file: `{config.DEFAULT_PATH}`, or the one that `UNIKERNEL_SHIM_CONFIG` or `--config` names.",
        "Every setting has a default, so an empty file will do. A key that is not here is an error that names it.",
        "`unikernel-shim config` prints what is in force. A daemon reads the file when it starts.",
    ]
    table: str | None = None
    for each in settings():
        if each.table != table:
            table = each.table
            heading = f"`[{table}]`" if table else "Outside any table"
            lines += ["", f"## {heading}", "", "| key | may be | default | is |", "|---|---|---|---|"]
        lines.append(f"| `{each.key}` | {each.kind} | `{each.default}` | {_cell(each.text)} |")
    return "\n".join(lines) + "\n"


def configuration_file() -> str:
    """contrib/config.toml."""
    lines = ["# unikernel-shim: every setting with its default; `unikernel-shim config` prints what is in force."]
    table: str | None = None
    for each in settings():
        if each.table != table:
            table = each.table
            lines += ["", *([f"[{table}]"] if table else [])]
        lines.append(f"# {each.key} = {each.default}".ljust(36) + f" # {each.text}")
    return "\n".join(lines) + "\n"


class Raised(NamedTuple):
    """One place where an error is made: the room, its class, what it says and what it advises, gaps shown as "…"."""

    room: str
    kind: str
    message: str
    remedy: str


def raised() -> list[Raised]:
    """Every error whose words stand where it is made, each once, by room and words."""
    found: set[Raised] = set()
    for path in sorted((ROOT / "shim").rglob("*.py")):
        parts = path.relative_to(ROOT / "shim").parts
        if parts[0] == "wire":
            continue
        room = parts[0] if len(parts) > 1 else "daemon"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ERRORS and node.args:
                remedy = next((each.value for each in node.keywords if each.arg == "remedy"), None)
                message = _words(node.args[0])
                if message.strip(f"{_GAP} :"):
                    found.add(Raised(room, node.func.id, message, _words(remedy) if remedy is not None else ""))
    return sorted(found, key=lambda each: (each.room, each.message.strip(_GAP + " ").lower(), each))


def _words(node: ast.expr) -> str:
    """The text of an expression, with a gap where it depends on the moment."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_words(part) for part in parts)
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return _words(left) + _words(right)
        case ast.IfExp(body=body, orelse=other):
            return " / ".join(filter(None, (_words(body), _words(other))))
    return _GAP


# What a room is to somebody who reads an error; a room that is not here has none.
_ROOMS = {
    "daemon": "The service and its files",
    "cli": "The command line",
    "doctor": "The node",
    "rpc": "Doors and peers",
    "services": "Requests",
    "sandbox": "Pods and containers",
    "network": "Networks",
    "guests": "Guests",
    "monitors": "Monitors",
    "storage": "File systems",
    "oci": "Images and bundles",
    "process": "Processes and their streams",
    "bench": "Figures of a node",
}


def errors_page() -> str:
    """docs/errors.md."""
    by_room: dict[str, list[Raised]] = defaultdict(list)
    for each in raised():
        by_room[each.room].append(each)
    unknown = by_room.keys() - _ROOMS
    assert not unknown, f"rooms without a heading: {unknown}"
    lines = [
        "# Errors, each with its remedy",
        "",
        "An error names what it is about, says what happened, and what to do where that does not follow from it. `…`",
        "stands for what differs from case to case. The code is the one that gRPC and ttrpc carry; whose fault it is",
        "decides where to look first: `user` the request, `image` the image, `node` this machine, `ours` a bug to",
        "report. [Operations](operations.md) has what to do by symptom.",
    ]
    for room, heading in _ROOMS.items():
        if room not in by_room:
            continue
        lines += ["", f"## {heading}", "", "| says | code | fault | to do |", "|---|---|---|---|"]
        for each in by_room[room]:
            kind = _ERRORS[each.kind]
            lines.append(f"| {_cell(each.message)} | {kind.code.name} | {kind.fault.value} | {_cell(each.remedy)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """As a cell of a table, word for word: nothing in it is Markdown's."""
    kept = " ".join(text.split())
    for mark in "\\`*_[]<>|#$~":
        kept = kept.replace(mark, f"\\{mark}")
    return kept


#: Path in the repository → what is to be there.
PAGES = {
    "docs/configuration.md": configuration_page,
    "contrib/config.toml": configuration_file,
    "docs/errors.md": errors_page,
}


def main() -> None:
    """Write them all."""
    for path, page in PAGES.items():
        (ROOT / path).write_text(page())


if __name__ == "__main__":
    main()
