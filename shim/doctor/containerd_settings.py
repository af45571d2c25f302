"""containerd's configuration put together, as containerd does: from parsed files to what is in force. Pure.

How that is done depends on its version (cmd/containerd/server/config/config.go of each, and `containerd config dump` of
1.6.20, 1.7.24 and 2.1.9):

    1.x         an imported file's table of a plugin takes the place of the main file's whole table of that plugin
    2.0 to 2.2  tables are merged; the newest `version` counts for all files, and tables of older names are not read
    2.3         tables are merged, each file by its own `version`; an import newer than the main file stops containerd
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from shim.doctor import stanzas

Version = tuple[int, int]
Table = dict[str, Any]

#: The tables that runtimes may be in.
TABLES: Final = (stanzas.RUNTIME_TABLE, stanzas.CRI_TABLE, stanzas.FIRST_TABLE)
#: containerd 2.0: sandboxers, sandbox plugins, merging.
SECOND: Final = (2, 0)
#: The first that takes each file by its own version.
BY_FILE: Final = (2, 3)


class Source(msgspec.Struct, frozen=True):
    """One file: what is in it, or why that cannot be told (`closed`: because it is another's); neither for one that is
    not there."""

    path: Path
    table: Table | None = None
    error: str = ""
    closed: bool = False


class Handler(msgspec.Struct, frozen=True):
    """A runtime handler that is, or means to be, ours: its name, its table, and the file that has it."""

    name: str
    table: Table
    file: Path

    @property
    def sandboxer(self) -> str:
        """Who is asked for its pods."""
        return string(self.table, "sandboxer") or "podsandbox"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force: `table` is the name of the table that runtimes are read from, `astray` are handlers of ours in
    tables that are not read, with these tables' names, `lost` files whose word on CRI is not read."""

    sources: tuple[Source, ...]
    line: Version
    version: int
    table: str
    runtimes: dict[str, tuple[Table, Path]]
    proxies: Table
    disabled: tuple[str, ...] = ()
    default: str = "runc"
    astray: tuple[tuple[Handler, str], ...] = ()
    lost: tuple[Path, ...] = ()

    @property
    def main(self) -> Path:
        """The file that containerd is given."""
        return self.sources[0].path


def subtable(table: object, *keys: str) -> Table:
    """A table in tables; an empty one where it is not there, or no table."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def string(table: Table, key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def strings(table: Table, key: str) -> tuple[str, ...]:
    value = table.get(key)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def version_of(source: Source) -> int:
    """A file that does not say is of version 1 (containerd-config.toml(5))."""
    value = (source.table or {}).get("version")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def newest(line: Version) -> int:
    """The newest `version` that a containerd reads (version/version.go, ConfigVersion)."""
    if line < SECOND:
        return 2
    return 3 if line < BY_FILE else 4


def guess(sources: Sequence[Source]) -> Version:
    """Which line of containerd files are for, where it cannot be asked."""
    if sources[0].table is None:
        return (2, 1)
    second = any(version_of(each) > 2 or sandbox_proxies(each.table or {}) for each in sources)
    return (2, 1) if second else (1, 7)


def sandbox_proxies(table: Table) -> list[str]:
    proxies = subtable(table, "proxy_plugins")
    return [name for name in proxies if string(subtable(proxies, name), "type") == "sandbox"]


def settle(sources: Sequence[Source], line: Version) -> Settings:
    """Put the files together, the main one first, as a containerd of that line does."""
    read = [each for each in sources if each.table is not None]
    latest = max(map(version_of, read), default=2 if line < SECOND else 3)
    sections = [(each, _tables_of(version_of(each), latest, line)) for each in read]
    runtimes, default = _runtimes(sections, line)
    proxies: Table = {}
    for each in read:
        proxies |= subtable(each.table, "proxy_plugins")
    return Settings(
        sources=tuple(sources),
        line=line,
        version=version_of(read[0]) if read else latest,
        table=_tables_of(latest, latest, line)[0],
        runtimes=runtimes,
        proxies=proxies,
        disabled=tuple(word for each in read for word in strings(each.table or {}, "disabled_plugins")),
        default=default,
        astray=tuple(handler for each, effective in sections for handler in _astray(each, effective)),
        lost=tuple(each.path for each, _ in sections if line >= SECOND and _is_lost(each, latest, line)),
    )


def _runtimes(
    sections: Iterable[tuple[Source, tuple[str, ...]]], line: Version
) -> tuple[dict[str, tuple[Table, Path]], str]:
    """The runtimes that are in force, each with the file that had the last word, and the default's name."""
    found: dict[str, tuple[Table, Path]] = {}
    default = "runc"
    for each, section in ((each, subtable(each.table, "plugins", name)) for each, names in sections for name in names):
        if section and line < SECOND:
            found, default = {}, "runc"
        default = string(subtable(section, "containerd"), "default_runtime_name") or default
        for name, entry in subtable(section, "containerd", "runtimes").items():
            former, _ = found.get(name, ({}, each.path))
            found[name] = ({**former, **entry} if isinstance(entry, dict) else {}, each.path)
    return found, default


def _astray(source: Source, effective: tuple[str, ...]) -> Iterator[tuple[Handler, str]]:
    for name in TABLES:
        for handler, entry in subtable(source.table, "plugins", name, "containerd", "runtimes").items():
            if name not in effective and isinstance(entry, dict) and _is_ours(handler, entry):
                yield Handler(handler, entry, source.path), name


def _tables_of(own: int, latest: int, line: Version) -> tuple[str, ...]:
    """The tables that a file's runtimes are read from, the one to write them to first; by the file's version, and the
    newest there is."""
    if line < SECOND:
        return (stanzas.CRI_TABLE if latest >= 2 else stanzas.FIRST_TABLE,)
    if line < BY_FILE:
        own = own if own == latest else 1
        return (stanzas.CRI_TABLE, stanzas.RUNTIME_TABLE) if own == 2 else (stanzas.RUNTIME_TABLE,)
    former: dict[int, tuple[str, ...]] = {1: (stanzas.RUNTIME_TABLE, stanzas.CRI_TABLE, stanzas.FIRST_TABLE)}
    former[2] = (stanzas.CRI_TABLE, stanzas.RUNTIME_TABLE)
    return former.get(own, (stanzas.RUNTIME_TABLE,))


def _is_lost(source: Source, latest: int, line: Version) -> bool:
    """Whether a file has tables of a name that is not read any more, because of another file's version."""
    return bool(line < BY_FILE and version_of(source) < latest and subtable(source.table, "plugins", stanzas.CRI_TABLE))


def _is_ours(name: str, table: Table) -> bool:
    """Whether a handler is this runtime's, or was meant to be."""
    said = string(table, "runtime_type")
    return "unikernel" in said or (name in stanzas.HANDLERS.values() and not said.endswith(".runc.v2"))


def handlers(settings: Settings) -> tuple[Handler, ...]:
    """The runtime handlers that are ours, or mean to be."""
    return tuple(
        Handler(name, table, file) for name, (table, file) in settings.runtimes.items() if _is_ours(name, table)
    )


def sandboxers(settings: Settings) -> tuple[str, ...]:
    """Who is asked for the pods of each of our handlers; a containerd that knows no sandboxers asks itself."""
    return tuple(asked(each, settings) for each in handlers(settings))


def asked(handler: Handler, settings: Settings) -> str:
    return handler.sandboxer if settings.line >= SECOND else "podsandbox"
