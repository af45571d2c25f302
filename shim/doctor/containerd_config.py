"""containerd's configuration: from parsed files to what is in force, and from that to findings. Pure.

How files are put together depends on containerd's version (cmd/containerd/server/config/config.go of each, and
`containerd config dump` of 1.6.20, 1.7.24 and 2.1.9):

    1.x         an imported file's table of a plugin takes the place of the main file's whole table of that plugin
    2.0 to 2.2  tables are merged; the newest `version` counts for all files, and tables of older ones' names are not read
    2.3         tables are merged, each file by its own `version`; an import newer than the main file stops containerd
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from shim.doctor import stanzas
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen

Version = tuple[int, int]
Table = dict[str, Any]

_TABLES: Final = (stanzas.RUNTIME_TABLE, stanzas.CRI_TABLE, stanzas.FIRST_TABLE)
_SECOND: Final = (2, 0)  # containerd 2.0: sandboxers, sandbox plugins, merging
_BY_FILE: Final = (2, 3)  # each file by its own version
# What a pod may say, to see whether patterns let it through.
_SAMPLES: Final = {
    "io.unikernel.*": "io.unikernel.kernel",
    "com.urunc.unikernel.*": "com.urunc.unikernel.binary",
    "io.kubernetes.pod.terminationGracePeriod": "io.kubernetes.pod.terminationGracePeriod",
}


class Source(msgspec.Struct, frozen=True):
    """One file: what is in it, or why that cannot be told (`closed`: because it is another's); neither for one that is
    not there."""

    path: Path
    table: Table | None = None
    error: str = ""
    closed: bool = False


class Courier(msgspec.Struct, frozen=True, kw_only=True):
    """The shim binary that containerd would run: `path` is "" where there is none, `fault` what is wrong with it, and
    `runs` whether it can be run for all that."""

    path: str = ""
    fault: str = ""
    runs: bool = True


class Handler(msgspec.Struct, frozen=True):
    """A runtime handler that is, or means to be, ours: its name, its table, and the file that has it."""

    name: str
    table: Table
    file: Path

    @property
    def sandboxer(self) -> str:
        """Who is asked for its pods."""
        return _text(self.table, "sandboxer") or "podsandbox"


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


def _sub(table: object, *keys: str) -> Table:
    """A table in tables; an empty one where it is not there, or no table."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _text(table: Table, key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _texts(table: Table, key: str) -> tuple[str, ...]:
    value = table.get(key)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _version(source: Source) -> int:
    """A file that does not say is of version 1 (containerd-config.toml(5))."""
    value = (source.table or {}).get("version")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def newest(line: Version) -> int:
    """The newest `version` that a containerd reads (version/version.go, ConfigVersion)."""
    if line < _SECOND:
        return 2
    return 3 if line < _BY_FILE else 4


def guess(sources: Sequence[Source]) -> Version:
    """Which line of containerd files are for, where it cannot be asked."""
    if sources[0].table is None:
        return (2, 1)
    second = any(_version(each) > 2 or _sandbox_proxies(each.table or {}) for each in sources)
    return (2, 1) if second else (1, 7)


def _sandbox_proxies(table: Table) -> list[str]:
    proxies = _sub(table, "proxy_plugins")
    return [name for name in proxies if _text(_sub(proxies, name), "type") == "sandbox"]


def settle(sources: Sequence[Source], line: Version) -> Settings:
    """Put the files together, the main one first, as a containerd of that line does."""
    read = [each for each in sources if each.table is not None]
    latest = max(map(_version, read), default=2 if line < _SECOND else 3)
    sections = [(each, _tables_of(_version(each), latest, line)) for each in read]
    runtimes, default = _runtimes(sections, line)
    proxies: Table = {}
    for each in read:
        proxies |= _sub(each.table, "proxy_plugins")
    return Settings(
        sources=tuple(sources),
        line=line,
        version=_version(read[0]) if read else latest,
        table=_tables_of(latest, latest, line)[0],
        runtimes=runtimes,
        proxies=proxies,
        disabled=tuple(word for each in read for word in _texts(each.table or {}, "disabled_plugins")),
        default=default,
        astray=tuple(handler for each, effective in sections for handler in _astray(each, effective)),
        lost=tuple(each.path for each, _ in sections if line >= _SECOND and _is_lost(each, latest, line)),
    )


def _runtimes(
    sections: Iterable[tuple[Source, tuple[str, ...]]], line: Version
) -> tuple[dict[str, tuple[Table, Path]], str]:
    """The runtimes that are in force, each with the file that had the last word, and the default's name."""
    found: dict[str, tuple[Table, Path]] = {}
    default = "runc"
    for each, section in ((each, _sub(each.table, "plugins", name)) for each, names in sections for name in names):
        if section and line < _SECOND:
            found, default = {}, "runc"
        default = _text(_sub(section, "containerd"), "default_runtime_name") or default
        for name, entry in _sub(section, "containerd", "runtimes").items():
            former, _ = found.get(name, ({}, each.path))
            found[name] = ({**former, **entry} if isinstance(entry, dict) else {}, each.path)
    return found, default


def _astray(source: Source, effective: tuple[str, ...]) -> Iterator[tuple[Handler, str]]:
    for name in _TABLES:
        for handler, entry in _sub(source.table, "plugins", name, "containerd", "runtimes").items():
            if name not in effective and isinstance(entry, dict) and _is_ours(handler, entry):
                yield Handler(handler, entry, source.path), name


def _tables_of(own: int, latest: int, line: Version) -> tuple[str, ...]:
    """The tables that a file's runtimes are read from, the one to write them to first; by the file's version, and the
    newest there is."""
    if line < _SECOND:
        return (stanzas.CRI_TABLE if latest >= 2 else stanzas.FIRST_TABLE,)
    if line < _BY_FILE:
        own = own if own == latest else 1
        return (stanzas.CRI_TABLE, stanzas.RUNTIME_TABLE) if own == 2 else (stanzas.RUNTIME_TABLE,)
    former = {1: (stanzas.RUNTIME_TABLE, stanzas.CRI_TABLE, stanzas.FIRST_TABLE)}
    former[2] = (stanzas.CRI_TABLE, stanzas.RUNTIME_TABLE)
    return former.get(own, (stanzas.RUNTIME_TABLE,))


def _is_lost(source: Source, latest: int, line: Version) -> bool:
    """Whether a file has tables of a name that is not read any more, because of another file's version."""
    return bool(line < _BY_FILE and _version(source) < latest and _sub(source.table, "plugins", stanzas.CRI_TABLE))


def _is_ours(name: str, table: Table) -> bool:
    """Whether a handler is this runtime's, or was meant to be."""
    said = _text(table, "runtime_type")
    return "unikernel" in said or (name in stanzas.HANDLERS.values() and not said.endswith(".runc.v2"))


def handlers(settings: Settings) -> tuple[Handler, ...]:
    """The runtime handlers that are ours, or mean to be."""
    return tuple(
        Handler(name, table, file) for name, (table, file) in settings.runtimes.items() if _is_ours(name, table)
    )


def sandboxers(settings: Settings) -> tuple[str, ...]:
    """Who is asked for the pods of each of our handlers; a containerd that knows no sandboxers asks itself."""
    return tuple(_sandboxer(each, settings) for each in handlers(settings))


def working(settings: Settings, socket: Path, courier: Courier) -> dict[str, str]:
    """The handlers whose pods can run, and the sandboxer of each."""
    return {
        each.name: _sandboxer(each, settings)
        for each in handlers(settings)
        if not any(_breaking(each, settings, socket, courier))
    }


def _sandboxer(handler: Handler, settings: Settings) -> str:
    return handler.sandboxer if settings.line >= _SECOND else "podsandbox"


def judge(settings: Settings, socket: Path, courier: Courier) -> list[Finding]:
    """What is to be said; `socket` is the daemon's, for plugins."""
    return [*_files(settings), *_registered(settings, socket, courier)]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.CONTAINERD, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


def _files(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the files as such: mostly, containerd does not start with them."""
    dead = "containerd does not start with it"
    for source in settings.sources:
        name = source.path.name
        if source.closed:
            yield unseen(Area.CONTAINERD, name, f"{source.path} cannot be read: {source.error}", AS_ROOT)
        elif source.error:
            fix = f"mend {source.path}; containerd --config {settings.main} config dump"
            yield _finding(name, Outcome.BAD, f"{source.path} cannot be read: {source.error}", dead, fix)
        elif source.table is not None and (version := _version(source)) > newest(settings.line):
            known = f"containerd {_dotted(settings.line)} knows {newest(settings.line)}"
            what = f"{source.path} is of version {version}, and {known}"
            yield _finding(name, Outcome.BAD, what, dead, "write it anew: containerd config default")
        elif source.table is not None and settings.line >= _BY_FILE and version > settings.version:
            what = (
                f"{source.path} is of version {version}, and {settings.main}, which imports it, of {settings.version}"
            )
            fix = f"containerd config migrate >{settings.main}.new && mv {settings.main}.new {settings.main}"
            yield _finding(name, Outcome.BAD, what, dead, fix)
    for path in settings.lost:
        why = "containerd 2.0 to 2.2 reads settings of CRI from files of the newest version alone"
        fix = f"containerd --config {settings.main} config migrate; say the same version in all files"
        yield _finding(
            path.name, Outcome.DOUBTFUL, f"what {path} says of CRI is not read: it is of an older version", why, fix
        )
    if settings.line < _SECOND:
        for name in _sandbox_proxies({"proxy_plugins": settings.proxies}):
            what = f"[proxy_plugins.{name}] is of type sandbox, which containerd {_dotted(settings.line)} does not know"
            fix = f"take that table out of {settings.main}, or run containerd 2"
            yield _finding("plugin", Outcome.BAD, what, dead, fix)
        if settings.runtimes and settings.default not in settings.runtimes:
            what = f"no runtime {settings.default} is written down, which is the default"
            why = (
                "containerd 1.x has none but those written down, and its CRI plugin does not start without the default"
            )
            fix = appending(settings, stanzas.ordinary(settings.default, settings.table))
            yield _finding("default runtime", Outcome.BAD, what, why, fix)
    off = {"cri", *_TABLES}.intersection(word.rpartition(":")[2] for word in settings.disabled)
    if off:
        fix = f"take {', '.join(sorted(off))} out of disabled_plugins in {settings.main}; systemctl restart containerd"
        yield _finding("CRI", Outcome.BAD, "its plugin is disabled", "the kubelet speaks to that plugin", fix)


def _dotted(line: Version) -> str:
    return ".".join(map(str, line))


def _registered(settings: Settings, socket: Path, courier: Courier) -> Iterator[Finding]:
    ours = handlers(settings)
    some = bool(working(settings, socket, courier))
    for each in ours:
        subject = f"handler {each.name}"
        broken = list(_breaking(each, settings, socket, courier))
        for what, why, fix in broken:
            yield _finding(subject, Outcome.DOUBTFUL if some else Outcome.BAD, what, why, fix)
        faults = list(_minor(each, settings))
        for what, why, fix in faults:
            yield _finding(subject, Outcome.DOUBTFUL, what, why, fix)
        if not broken and not faults:
            yield _finding(subject, Outcome.GOOD, f"sandboxer {_sandboxer(each, settings)}, in {each.file}")
    for each, table in settings.astray:
        what = f'{each.file} has it in [plugins."{table}"], which is not read here'
        reader = f"containerd {_dotted(settings.line)}, with version = {settings.version},"
        why = f'{reader} reads [plugins."{settings.table}"]'
        fix = replacing(each.file, stanzas.runtime(each.name, each.sandboxer, settings.table))
        yield _finding(f"handler {each.name}", Outcome.DOUBTFUL if some else Outcome.BAD, what, why, fix)
    if not ours and not settings.astray and not any(each.closed for each in settings.sources):
        absent = settings.sources[0].table is None and not settings.sources[0].error
        what = f"there is no {settings.main}" if absent else f"{settings.main} names no runtime handler of ours"
        why = "the kubelet asks containerd for a pod by its RuntimeClass's handler, and is refused"
        yield _finding("handler", Outcome.BAD, what, why, appending(settings, _advised(settings, socket)))


def _advised(settings: Settings, socket: Path) -> str:
    """What to add where there is nothing: the way without a shim process, where containerd has it."""
    if settings.line >= _SECOND:
        return stanzas.stanza(stanzas.PLUGIN, settings.table, socket)
    own = stanzas.stanza("podsandbox", settings.table, socket)
    return (
        own if settings.default in settings.runtimes else f"{stanzas.ordinary(settings.default, settings.table)}\n{own}"
    )


def appending(settings: Settings, text: str) -> str:
    """The command that adds `text`: to the main file, or beside the files that it imports, where that adds."""
    restart = "systemctl restart containerd"
    main = settings.main
    table = settings.sources[0].table
    header = f"version = {3 if settings.line >= _SECOND else 2}\n\n"
    if table is None:
        return f"mkdir -p {main.parent}\ncat >{main} <<'EOF'\n{header}{text}EOF\n{restart}"
    directory = next((Path(each).parent for each in _texts(table, "imports") if each.endswith("*.toml")), None)
    if directory is not None and settings.line >= _SECOND and settings.version >= 2:
        file = main.parent / directory / "unikernel.toml"
        return f"cat >{file} <<'EOF'\nversion = {settings.version}\n\n{text}EOF\n{restart}"
    return f"cat >>{main} <<'EOF'\n\n{text}EOF\n{restart}"


def replacing(file: Path, text: str) -> str:
    """What to do about a table that is there, and wrong: TOML has each table once."""
    return f"# in {file}, in that table's place:\n{text}# then: systemctl restart containerd"


Problem = tuple[str, str, str]


def _breaking(handler: Handler, settings: Settings, socket: Path, courier: Courier) -> Iterator[Problem]:
    """What keeps a handler's pods from running: what, why, fix."""
    sandboxer = _sandboxer(handler, settings)
    wanted = sandboxer if sandboxer in stanzas.HANDLERS else stanzas.PLUGIN
    whole = replacing(handler.file, stanzas.runtime(handler.name, wanted, settings.table))
    said = handler.table.get("runtime_type")
    if said != stanzas.RUNTIME_TYPE:
        what = f"runtime_type is {said!r}" if said is not None else "it has no runtime_type"
        yield what, f"this runtime's is {stanzas.RUNTIME_TYPE!r}; containerd runs another program for another", whole
    if sandboxer in stanzas.BY_COURIER:
        yield from _by_courier(handler, sandboxer, courier)
    elif sandboxer not in settings.proxies:
        what = f"there is no [proxy_plugins.{sandboxer}], which its sandboxer names"
        yield what, "containerd refuses its pods", appending(settings, stanzas.plugin(socket, sandboxer))
    else:
        yield from _by_plugin(sandboxer, _sub(settings.proxies, sandboxer), settings, socket)


def _by_courier(handler: Handler, sandboxer: str, courier: Courier) -> Iterator[Problem]:
    own = _text(handler.table, "runtime_path")
    if not own and not courier.path:
        what = f"{stanzas.COURIER} is not on containerd's PATH"
        yield what, "containerd runs it for each of the handler's pods", "make install"
    elif not own and not courier.runs:
        yield f"{courier.path}: {courier.fault}", "containerd runs it for each of the handler's pods", "make install"
    if sandboxer == "podsandbox" and _text(handler.table, "io_type") == "streaming":
        fix = f'take io_type out of its table in {handler.file}, or add sandboxer = "shim"'
        yield "io_type is streaming, with a pause container", "containerd then refuses each container", fix


def _by_plugin(name: str, proxy: Table, settings: Settings, socket: Path) -> Iterator[Problem]:
    why = "containerd asks it for each of the handler's pods"
    mend = replacing(settings.main, stanzas.plugin(socket, name))
    kind, address = proxy.get("type"), proxy.get("address")
    if kind != "sandbox":
        yield f"[proxy_plugins.{name}] is of type {kind!r}, not 'sandbox'", why, mend
    if not isinstance(address, str) or Path(address) != socket:
        yield f"[proxy_plugins.{name}] has the address {address!r}, and the service's is {str(socket)!r}", why, mend


def _minor(handler: Handler, settings: Settings) -> Iterator[Problem]:
    """What lets pods run, though not as they may want."""
    if settings.line < _SECOND and handler.sandboxer != "podsandbox":
        what = f"sandboxer is {handler.sandboxer!r}, and containerd {_dotted(settings.line)} knows no sandboxers"
        yield what, "its pods have a pause container all the same", f"take sandboxer out of its table in {handler.file}"
    for key, wanted in stanzas.ANNOTATIONS.items():
        patterns = _texts(handler.table, key)
        missing = [word for word in wanted if not _lets_through(patterns, _SAMPLES[word])]
        if missing:
            line = stanzas.array(key, dict.fromkeys((*patterns, *missing)))
            what = f"{key} lets {', '.join(missing)} not through"
            yield what, "what pods say by these annotations does not reach the service", f"# in {handler.file}:\n{line}"


def _lets_through(patterns: Sequence[str], annotation: str) -> bool:
    """As Go's path.Match does, in which no annotation of ours has a slash to stop at."""
    return any(fnmatch.fnmatchcase(annotation, pattern) for pattern in patterns)
