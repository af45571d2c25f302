"""The build: what pyproject.toml says, and the wire contract's classes generated first."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent / "protos"))


class _BuildPy(build_py):
    def run(self) -> None:
        from generate import generate

        generate()
        super().run()


setup(cmdclass={"build_py": _BuildPy})
