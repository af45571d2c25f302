"""Doubles of monitors that this machine has not, or cannot run a whole guest on: programs that speak their interface.

Each takes the real program's command line, configuration file or API as strictly as the real one, attaches its taps in
the same way, and behind them is a guest that answers ARP, ping and UDP's echo at the address that it is told
(`guest.py`).
A double proves that we speak as the program's documentation and source say; that these are right, it cannot.

    firecracker        beside the real one, which runs here but no guest with a network stack on it
    cloud-hypervisor   there is no real one: no package registry has it

They run in a monitor's root, which holds the node's /usr and the program, so each is one file: a zip application of
these modules (zipapp).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

_HERE = Path(__file__).parent
_MODULES = ("guest.py", "firecracker.py", "cloud_hypervisor.py")
_PACKAGE = __name__.replace(".", "/")
_MAIN = f"from {__name__}.{{module}} import main\nmain({{version!r}})\n"


def place(directory: Path, name: str, version: str) -> Path:
    """Write the double of the monitor `name`, which calls itself `version`, into `directory`; its path."""
    path, draft = directory / name, directory / f"{name}.draft"
    with draft.open("wb") as file:
        file.write(b"#!/usr/bin/python3 -IS\n")
        with zipfile.ZipFile(file, "w") as archive:
            for parent in (*reversed(Path(_PACKAGE).parents[:-1]), _PACKAGE):
                archive.writestr(f"{parent}/", b"")  # zipimport takes a package without __init__ for one by these
            for module in _MODULES:
                archive.write(_HERE / module, f"{_PACKAGE}/{module}")
            archive.writestr("__main__.py", _MAIN.format(module=name.replace("-", "_"), version=version))
    draft.chmod(0o755)
    draft.replace(path)
    return path


def lend(directory: Path, name: str, program: Path) -> Path:
    """As `place`, with the real program."""
    path = directory / name
    path.unlink(missing_ok=True)
    os.symlink(program, path)
    return path


def configuration(directory: Path) -> str:
    """TOML by which a daemon finds the monitors that are placed in `directory`; until then they are not installed."""
    return "".join(
        f'\n[monitors.{name}]\npath = "{directory / name}"\n' for name in ("firecracker", "cloud-hypervisor")
    )
