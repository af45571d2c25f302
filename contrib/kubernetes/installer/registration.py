"""How containerd is told of the runtime: decided from its version and its configuration, touching nothing.

The stanzas are those of contrib/containerd. Where containerd 2.x imports a directory, a file of ours goes there and no
other is touched. Anywhere else a block goes to the end of the main file: containerd 1.x lets an import take the place
of all that the main file says of CRI, and 2.x wants the versions of both to be equal.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from shim.doctor.containerd_settings import SECOND, newest
from shim.doctor.stanzas import CRI_TABLE, RUNTIME_TABLE
from shim.errors import NodeFault

BEGIN = "# unikernel-shim: begin. Written by its installer, which takes out what is between these lines."
END = "# unikernel-shim: end"
#: The file's name in a directory that containerd imports.
DROP_IN = "unikernel-shim.toml"
#: The table of containerd's CRI by the version of the configuration's format (containerd, docs/cri/config.md).
_TABLES = {2: CRI_TABLE, 3: RUNTIME_TABLE, 4: RUNTIME_TABLE}
#: The version of the stanzas for 2.x. 2.3 takes each file by its own, and none newer than the main one.
_OF_STANZAS = 3
_BLOCK = re.compile(rf"\n?{re.escape(BEGIN)}\n.*?{re.escape(END)}\n", re.DOTALL)


class Registration(msgspec.Struct, frozen=True):
    """`text` is all of the file `path` (`whole`), or what is to follow that file's own text."""

    path: str
    text: str
    whole: bool


def read_version(words: str) -> tuple[int, int]:
    """Major and minor out of `containerd --version`. Raises NodeFault."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.\d+", words)
    if found is None:
        raise NodeFault(f"does not say its version: {words.strip()!r}", subject="containerd --version")
    return int(found[1]), int(found[2])


def without_block(text: str) -> str:
    """A main file's text as it is without our block."""
    return _BLOCK.sub("", text, count=1)


def decide(version: tuple[int, int], path: str, text: str | None, stanzas: Mapping[str, str]) -> Registration:
    """Where which text goes. `text` is that of the main file `path` without our block, None where there is no such
    file; `stanzas` are the files of contrib/containerd by name.

    Raises NodeFault for a containerd or a configuration that cannot be told.
    """
    name = "2.x-sandbox-plugin.toml" if version >= SECOND else f"{version[0]}.{version[1]}-podsandbox.toml"
    if name not in stanzas:
        raise NodeFault(
            f"version {version[0]}.{version[1]} is none that this runtime knows",
            subject="containerd",
            remedy="use 1.6, 1.7 or 2.x",
        )
    own = _OF_STANZAS if version >= SECOND else newest(version)
    body = _body(stanzas[name])
    document = parse(path, text or "")
    if version < SECOND and not handlers(document):
        # Seen with 1.6 and 1.7: the first runtime that a file names takes the place of the one built in.
        raise NodeFault(
            "names no runtime, and would lose runc with the first that it names",
            subject=path,
            remedy="write what `containerd config default` prints to it",
        )
    if text is None:
        return Registration(path, f"version = {own}\n\n{body}", whole=True)
    declared = document.get("version", 1)
    if declared not in _TABLES or declared > newest(version):
        known = " or ".join(map(str, range(2, newest(version) + 1)))
        raise NodeFault(
            f"is of version {declared}, and a runtime is told in version {known}",
            subject=path,
            remedy="write it in the newer format (`containerd config migrate` prints it)",
        )
    taken = sorted(handlers(document) & handlers(parse(name, body)))
    if taken:
        raise NodeFault(
            f"has a runtime {taken[0]!r} already",
            subject=path,
            remedy="take out what was written by hand, or leave it so",
        )
    if declared >= _OF_STANZAS:
        for pattern in document.get("imports", []):
            directory, last = posixpath.split(posixpath.join(posixpath.dirname(path), pattern))
            if last == "*.toml" and "*" not in directory:
                return Registration(posixpath.join(directory, DROP_IN), f"version = {own}\n\n{body}", whole=True)
    return Registration(path, f"\n{BEGIN}\n{body.replace(_TABLES[own], _TABLES[declared])}{END}\n", whole=False)


def handlers(document: Mapping[str, Any]) -> set[str]:
    """The runtimes that a configuration names, in either format."""
    plugins = document.get("plugins", {})
    return {
        name for table in _TABLES.values() for name in plugins.get(table, {}).get("containerd", {}).get("runtimes", {})
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any], added: Mapping[str, Any]) -> str:
    """What a registration has done to containerd's configuration beside what it was to do: "" is nothing.

    `before` and `after` are what containerd made of it (`config dump`), `added` is the registration's own text, parsed.
    """
    missing = sorted(handlers(added) - handlers(after))
    if missing:
        return f"the runtime {missing[0]!r} is not in force"
    was, now = _without(before, added), _without(after, added)
    changed = sorted(key for key in {*was, *now} if (was.get(key) or {}) != (now.get(key) or {}))
    return f"{changed[0]} is not what it was" if changed else ""


def _without(dumped: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by tables, plugins each by itself, without what was `added`, and without how it came together."""
    proxies = {k: v for k, v in dumped.get("proxy_plugins", {}).items() if k not in added.get("proxy_plugins", {})}
    rest = {k: v for k, v in dumped.items() if k not in ("imports", "version", "plugins")} | {"proxy_plugins": proxies}
    for name, plugin in dumped.get("plugins", {}).items():
        if name in _TABLES.values():
            containerd = plugin.get("containerd", {})
            runtimes = {k: v for k, v in containerd.get("runtimes", {}).items() if k not in handlers(added)}
            plugin = {**plugin, "containerd": {**containerd, "runtimes": runtimes}}
        rest[f"plugins.{name}"] = plugin
    return rest


def parse(subject: str, text: str) -> dict[str, Any]:
    """The text as TOML. Raises NodeFault."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NodeFault(f"is no TOML: {error}", subject=subject) from error


def _body(stanza: str) -> str:
    """A stanza without its opening comment and its version."""
    lines = [line for line in stanza.splitlines() if not line.startswith(("#", "version ="))]
    return "\n".join(lines).strip("\n") + "\n"
