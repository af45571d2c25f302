"""What containerd's configuration means for this runtime: findings, and what to add or to put right. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shim.doctor import stanzas
from shim.doctor.containerd_settings import (
    BY_FILE,
    SECOND,
    TABLES,
    Handler,
    Settings,
    Source,
    Table,
    Version,
    asked,
    handlers,
    newest,
    sandbox_proxies,
    string,
    strings,
    subtable,
    version_of,
)
from shim.doctor.finding import AS_ROOT, Area, Finding, Outcome, unseen

# What a pod may say, to see whether patterns let it through.
_SAMPLES: Final = {
    "io.unikernel.*": "io.unikernel.kernel",
    "com.urunc.unikernel.*": "com.urunc.unikernel.binary",
    "io.kubernetes.pod.terminationGracePeriod": "io.kubernetes.pod.terminationGracePeriod",
}


class Courier(msgspec.Struct, frozen=True, kw_only=True):
    """The shim binary that containerd would run: `path` is "" where there is none, `fault` what is wrong with it, and
    `runs` whether it can be run for all that."""

    path: str = ""
    fault: str = ""
    runs: bool = True


def working(settings: Settings, socket: Path, courier: Courier) -> dict[str, str]:
    """The handlers whose pods can run, and the sandboxer of each."""
    return {
        each.name: asked(each, settings)
        for each in handlers(settings)
        if not any(_breaking(each, settings, socket, courier))
    }


def judge(settings: Settings, socket: Path, courier: Courier) -> list[Finding]:
    """What is to be said; `socket` is the daemon's, for plugins."""
    return [*_files(settings), *_registered(settings, socket, courier)]


def _finding(subject: str, outcome: Outcome, what: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area=Area.CONTAINERD, subject=subject, outcome=outcome, what=what, why=why, fix=fix)


_DEAD = "containerd does not start with it"


def _files(settings: Settings) -> Iterator[Finding]:
    """What is wrong with the files as such, whatever runtime they are about."""
    for source in settings.sources:
        yield from _file(source, settings)
    for path in settings.lost:
        what = f"what {path} says of CRI is not read: it is of an older version"
        why = "containerd 2.0 to 2.2 reads settings of CRI from files of the newest version alone"
        fix = f"containerd --config {settings.main} config migrate; say the same version in all files"
        yield _finding(path.name, Outcome.DOUBTFUL, what, why, fix)
    if settings.line < SECOND:
        yield from _of_the_first(settings)
    off = {"cri", *TABLES}.intersection(word.rpartition(":")[2] for word in settings.disabled)
    if off:
        fix = f"take {', '.join(sorted(off))} out of disabled_plugins in {settings.main}; systemctl restart containerd"
        yield _finding("CRI", Outcome.BAD, "its plugin is disabled", "the kubelet speaks to that plugin", fix)


def _file(source: Source, settings: Settings) -> Iterator[Finding]:
    path, main, line = source.path, settings.main, settings.line
    if source.closed:
        yield unseen(Area.CONTAINERD, path.name, f"{path} cannot be read: {source.error}", AS_ROOT)
    elif source.error:
        fix = f"mend {path}; containerd --config {main} config dump"
        yield _finding(path.name, Outcome.BAD, f"{path} cannot be read: {source.error}", _DEAD, fix)
    elif (version := version_of(source)) > newest(line):
        what = f"{path} is of version {version}, and containerd {_dotted(line)} knows {newest(line)}"
        yield _finding(path.name, Outcome.BAD, what, _DEAD, "write it anew: containerd config default")
    elif line >= BY_FILE and version > settings.version:
        what = f"{path} is of version {version}, and {main}, which imports it, of {settings.version}"
        fix = f"containerd --config {main} config migrate >{main}.new && mv {main}.new {main}"
        yield _finding(path.name, Outcome.BAD, what, _DEAD, fix)


def _of_the_first(settings: Settings) -> Iterator[Finding]:
    """What containerd 1.x does not bear."""
    for name in sandbox_proxies({"proxy_plugins": settings.proxies}):
        what = f"[proxy_plugins.{name}] is of type sandbox, which containerd {_dotted(settings.line)} does not know"
        fix = f"take that table out of {settings.main}, or run containerd 2"
        yield _finding("plugin", Outcome.BAD, what, _DEAD, fix)
    if settings.runtimes and settings.default not in settings.runtimes:
        what = f"no runtime {settings.default} is written down, which is the default"
        why = "containerd 1.x has none but those written down, and no CRI plugin without the default"
        fix = appending(settings, stanzas.ordinary(settings.default, settings.table))
        yield _finding("default runtime", Outcome.BAD, what, why, fix)


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
            yield _finding(subject, Outcome.GOOD, f"sandboxer {asked(each, settings)}, in {each.file}")
    for each, table in settings.astray:
        what = f'{each.file} has it in [plugins."{table}"], which is not read here'
        reader = f"containerd {_dotted(settings.line)}, with version = {settings.version},"
        why = f'{reader} reads [plugins."{settings.table}"]'
        fix = replacing(each.file, stanzas.runtime(each.name, each.sandboxer, settings.table))
        yield _finding(f"handler {each.name}", Outcome.DOUBTFUL if some else Outcome.BAD, what, why, fix)
    if not ours and not settings.astray and not any(each.error for each in settings.sources):
        what = (
            f"there is no {settings.main}"
            if settings.sources[0].table is None
            else f"{settings.main} names no runtime handler of ours"
        )
        why = "the kubelet asks containerd for a pod by its RuntimeClass's handler, and is refused"
        yield _finding("handler", Outcome.BAD, what, why, appending(settings, _advised(settings, socket)))


def _advised(settings: Settings, socket: Path) -> str:
    """What to add where there is nothing: the way without a shim process, where containerd has it."""
    if settings.line >= SECOND:
        return stanzas.stanza(stanzas.PLUGIN, settings.table, socket)
    own = stanzas.stanza("podsandbox", settings.table, socket)
    if settings.default in settings.runtimes:
        return own
    return f"{stanzas.ordinary(settings.default, settings.table)}\n{own}"


def appending(settings: Settings, text: str) -> str:
    """The command that adds `text`: to the main file, or beside the files that it imports, where that adds."""
    restart = "systemctl restart containerd"
    main = settings.main
    table = settings.sources[0].table
    header = f"version = {3 if settings.line >= SECOND else 2}\n\n"
    if table is None:
        return f"mkdir -p {main.parent}\ncat >{main} <<'EOF'\n{header}{text}EOF\n{restart}"
    directory = next((Path(each).parent for each in strings(table, "imports") if each.endswith("*.toml")), None)
    if directory is not None and settings.line >= SECOND and settings.version >= 2:
        file = main.parent / directory / "unikernel.toml"
        return f"cat >{file} <<'EOF'\nversion = {settings.version}\n\n{text}EOF\n{restart}"
    return f"cat >>{main} <<'EOF'\n\n{text}EOF\n{restart}"


def replacing(file: Path, text: str) -> str:
    """What to do about a table that is there, and wrong: TOML has each table once."""
    return f"# in {file}, in that table's place:\n{text}# then: systemctl restart containerd"


Problem = tuple[str, str, str]


def _breaking(handler: Handler, settings: Settings, socket: Path, courier: Courier) -> Iterator[Problem]:
    """What keeps a handler's pods from running: what, why, fix."""
    sandboxer = asked(handler, settings)
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
        yield from _by_plugin(sandboxer, subtable(settings.proxies, sandboxer), settings, socket)


def _by_courier(handler: Handler, sandboxer: str, courier: Courier) -> Iterator[Problem]:
    own = string(handler.table, "runtime_path")
    if not own and not courier.path:
        what = f"{stanzas.COURIER} is not on containerd's PATH"
        yield what, "containerd runs it for each of the handler's pods", "make install"
    elif not own and not courier.runs:
        yield f"{courier.path}: {courier.fault}", "containerd runs it for each of the handler's pods", "make install"
    if sandboxer == "podsandbox" and string(handler.table, "io_type") == "streaming":
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
    if settings.line < SECOND and handler.sandboxer != "podsandbox":
        what = f"sandboxer is {handler.sandboxer!r}, and containerd {_dotted(settings.line)} knows no sandboxers"
        yield what, "its pods have a pause container all the same", f"take sandboxer out of its table in {handler.file}"
    for key, wanted in stanzas.ANNOTATIONS.items():
        patterns = strings(handler.table, key)
        missing = [word for word in wanted if not _lets_through(patterns, _SAMPLES[word])]
        if missing:
            line = stanzas.array(key, dict.fromkeys((*patterns, *missing)))
            what = f"{key} lets {', '.join(missing)} not through"
            yield what, "what pods say by these annotations does not reach the service", f"# in {handler.file}:\n{line}"


def _lets_through(patterns: Sequence[str], annotation: str) -> bool:
    """As Go's path.Match does, in which no annotation of ours has a slash to stop at."""
    return any(fnmatch.fnmatchcase(annotation, pattern) for pattern in patterns)
