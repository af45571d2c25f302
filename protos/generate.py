"""Generates `shim/wire` from the files beside this one. Run by `make proto` and by every build of the package."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
WIRE = PROTOS.parent / "shim" / "wire"


def contract() -> list[Path]:
    """The contract's files, in the order in which protoc gets them."""
    return sorted(PROTOS.glob("*.proto"))


def fingerprint() -> str:
    """What the generated code depends on: the contract's text, this program and the generators' releases."""
    digest = hashlib.sha256()
    for path in [*contract(), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for distribution in ("grpcio-tools", "mypy-protobuf"):
        digest.update(f"{distribution} {version(distribution)}\n".encode())
    return digest.hexdigest()


def generate(target: Path = WIRE) -> bool:
    """Bring the message classes and stubs in `target` up to date; says whether there was anything to do.

    Each file is replaced in one step, and only if it changes, so that programs that run meanwhile find whole modules.
    Raises SystemExit when the contract does not compile.
    """
    stamp = target / ".fingerprint"
    current = fingerprint()
    wanted = {f"{path.stem}_pb2{suffix}" for path in contract() for suffix in (".py", ".pyi")}
    present = {path.name for path in target.glob("*_pb2.py*")}
    if stamp.exists() and stamp.read_text() == current and present == wanted:
        return False
    stamp.unlink(missing_ok=True)  # an interrupted run must not pass for a finished one
    # On the same file system as the target, or a rename would not be one step.
    with tempfile.TemporaryDirectory(prefix=".generating-", dir=target) as scratch:
        written = _compile(Path(scratch))
        for path in sorted(written.iterdir()):
            final = target / path.name
            if not final.exists() or final.read_bytes() != path.read_bytes():
                path.replace(final)
    for name in present - wanted:
        (target / name).unlink()
    stamp.write_text(current)
    return True


def _compile(root: Path) -> Path:
    """Run protoc with `root` as its output directory; the directory in it that holds the modules."""
    # protoc finds its plugin on PATH; a virtual environment need not be active for its own programs to be used.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    arguments = [
        "protoc",
        f"-Ishim/wire={PROTOS}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={root}",
        f"--mypy_out=quiet:{root}",
        *(f"shim/wire/{path.name}" for path in contract()),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protos: the contract does not compile")
    return root / "shim" / "wire"


if __name__ == "__main__":
    generate()
