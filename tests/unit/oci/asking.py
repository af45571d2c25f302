"""Asking what an image is, as the sandbox does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shim.oci.image import Unikernel, recognise
from tests.unit.oci import elf
from tests.unit.oci.urunc_file import file

HERE = elf.AARCH64 if os.uname().machine == "aarch64" else elf.X86_64
ELSEWHERE = elf.X86_64 if HERE == elf.AARCH64 else elf.AARCH64
LINUX = elf.image([elf.pvh()], HERE)


def ask(root: Path, *arguments: str, **wishes: str) -> Unikernel | None:
    annotations: Mapping[str, str] = {f"io.unikernel.{key}": value for key, value in wishes.items()}
    return recognise(root, arguments, annotations)


def found(root: Path, *arguments: str, **wishes: str) -> Unikernel:
    image = ask(root, *arguments, **wishes)
    assert image is not None
    return image


def urunc_json(root: Path, **values: str) -> None:
    """Give the image a urunc.json."""
    (root / "urunc.json").write_bytes(file(values))
