"""Generates `shim/wire` from the files beside this one. Run by `make proto` and by every build of the package."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
WIRE = PROTOS.parent / "shim" / "wire"


def fingerprint() -> str:
    """What the generated code depends on: the contract's text and the generator's version."""
    digest = hashlib.sha256()
    for path in sorted(PROTOS.glob("*.proto")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(Path(protoc.__file__).read_bytes() + sys.version.encode())
    return digest.hexdigest()


def generate(target: Path = WIRE) -> bool:
    """Write the message classes and stubs into `target` unless they are current; says whether it did."""
    stamp = target / ".fingerprint"
    current = fingerprint()
    if stamp.exists() and stamp.read_text() == current:
        return False
    for old in target.glob("*_pb2.py*"):
        old.unlink()
    # protoc finds its plugin on PATH; a virtual environment need not be active for its own programs to be used.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    names = [f"shim/wire/{path.name}" for path in sorted(PROTOS.glob("*.proto"))]
    # protoc writes below the output directory by import path, which ends in shim/wire.
    root = target.parent.parent
    arguments = [
        "protoc",
        f"-Ishim/wire={PROTOS}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={root}",
        f"--mypy_out=quiet:{root}",
        *names,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protos: the contract does not compile")
    stamp.write_text(current)
    return True


if __name__ == "__main__":
    generate()
