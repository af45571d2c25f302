#!/usr/bin/env python3
"""Print the machine's own apt sources with the suite replaced: `apt_sources.py FROM TO [ETC]`.

The tests need packages of a newer Debian suite, unpacked and never installed. Where those come from is the machine's
business (a mirror, a proxy, a cache), so its own sources are taken, one suite swapped for another, and every option
(the signing key first of all) kept. Both formats of sources.list(5) are read; the deb822 one is written.

Standard library only: it runs before the virtual environment exists.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

Stanza = dict[str, str]

#: One-line options (sources.list(5)) and the deb822 fields they are called there.
_OPTIONS = {
    "arch": "Architectures",
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "lang": "Languages",
    "target": "Targets",
    "by-hash": "By-Hash",
    "pdiffs": "PDiffs",
    "allow-insecure": "Allow-Insecure",
    "allow-weak": "Allow-Weak",
    "check-valid-until": "Check-Valid-Until",
}
_CLASSIC = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


def deb822(text: str) -> list[Stanza]:
    """The stanzas of a `.sources` file; continuation lines (an inline key) are kept as they stand."""
    stanzas: list[Stanza] = []
    for block in re.split(r"\n[ \t]*\n", text):
        stanza: Stanza = {}
        field = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t" and field:
                stanza[field] += "\n" + line
            elif ":" in line:
                field, _, value = line.partition(":")
                field = field.strip().title() if field.strip().islower() else field.strip()
                stanza[field] = value.strip()
        if stanza:
            stanzas.append(stanza)
    return stanzas


def classic(text: str) -> list[Stanza]:
    """The `deb` lines of a `.list` file, as deb822 stanzas."""
    stanzas: list[Stanza] = []
    for line in text.splitlines():
        found = _CLASSIC.match(line.split("#", 1)[0].strip())
        if found is None:
            continue
        stanza = {
            "Types": "deb",
            "URIs": found["uri"],
            "Suites": found["suite"],
            "Components": found["components"].strip(),
        }
        for option in (found["options"] or "").split():
            name, _, value = option.partition("=")
            if name in _OPTIONS:
                stanza[_OPTIONS[name]] = value.replace(",", " ")
        stanzas.append(stanza)
    return stanzas


def rewrite(stanzas: list[Stanza], old: str, new: str) -> list[Stanza]:
    """The enabled binary stanzas that offer the suite `old`, offering `new` and nothing else."""
    kept: list[Stanza] = []
    for stanza in stanzas:
        fields = {name.lower(): value for name, value in stanza.items()}
        offered = old in fields.get("suites", "").split() and "deb" in fields.get("types", "").split()
        if not offered or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        kept.append(
            {k: new if k.lower() == "suites" else "deb" if k.lower() == "types" else v for k, v in stanza.items()}
        )
    return kept


def machine(etc: Path) -> list[Stanza]:
    """Every stanza of the machine's apt configuration under `etc`."""
    stanzas: list[Stanza] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            stanzas += classic(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            stanzas += deb822(path.read_text())
    return stanzas


def main(arguments: list[str]) -> int:
    """Print the stanzas; 1 if the machine has no source for the suite FROM."""
    old, new = arguments[:2]
    etc = Path(arguments[2] if len(arguments) > 2 else "/etc/apt")
    stanzas = rewrite(machine(etc), old, new)
    if not stanzas:
        print(f"{etc}: no apt source here offers the suite {old}", file=sys.stderr)
        return 1
    print("\n\n".join("\n".join(f"{name}: {value}" for name, value in stanza.items()) for stanza in stanzas))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
