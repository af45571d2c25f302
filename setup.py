"""The build: what pyproject.toml says, and the wire contract's classes generated first."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(_ROOT / "protos"))


class _BuildPy(build_py):
    def run(self) -> None:
        from generate import generate

        generate()
        super().run()

    def get_source_files(self) -> list[str]:
        """What goes into a source distribution: the contract and its generator too, and nothing that they make."""
        kept = [name for name in super().get_source_files() if "_pb2.py" not in name]
        protos = sorted(path for path in (_ROOT / "protos").iterdir() if path.is_file())
        return [*kept, *(str(path.relative_to(_ROOT)) for path in protos)]


setup(cmdclass={"build_py": _BuildPy})
