"""contrib's Dockerfiles by hadolint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.kubernetes.a_node import CONTRIB

DOCKERFILES = sorted([*CONTRIB.rglob("Dockerfile"), *CONTRIB.rglob("*.Dockerfile")])


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: str(path.relative_to(CONTRIB)))
def test_a_dockerfile_is_read_without_complaint(file: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: str(path.relative_to(CONTRIB)))
def test_what_it_copies_is_sent_to_the_build(file: Path) -> None:
    """Each source of a COPY is let through by the Dockerfile's own ignore file."""
    passed = [line[1:] for line in Path(f"{file}.dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in file.read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not any(word.startswith("--from") for word in words):
            [source] = [word for word in words[1:-1] if not word.startswith("--")]
            assert source == "." or any(source.startswith(name) for name in passed), source
            assert (CONTRIB.parent / source).exists()
    for name in passed:
        assert (CONTRIB.parent / name).exists(), name
