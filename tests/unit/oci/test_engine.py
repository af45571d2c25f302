"""What an engine says when it refuses, and what is said where its files cannot be written or removed."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.errors import NodeFault, Unexpected
from shim.oci.engine import Engine, Limits, last_error
from shim.process.reaper import Reaper


def test_the_last_error_of_a_json_log() -> None:
    log = (
        b'{"level":"warning","msg":"odd"}\n{"level":"error","msg":"first"}\n'
        b'{"level":"error","msg":" container_linux.go: no such file "}\n{"level":"debug","msg":"x"}\n'
    )
    assert last_error(log) == "container_linux.go: no such file"


def test_plain_words_are_kept() -> None:
    assert last_error(b"crun: cgroups in hybrid mode not supported\n") == "crun: cgroups in hybrid mode not supported"
    assert last_error(b"") == ""


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    started = Reaper()
    started.start()
    yield started
    started.stop()


def program(directory: Path, text: str) -> str:
    """An engine that is a shell script."""
    path = directory / "runc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return os.fspath(path)


def engine(reaper: Reaper, binary: str, directory: Path) -> Engine:
    (directory / "calls").mkdir()
    return Engine(reaper, binary, directory, directory / "calls", Limits(timeout=5.0, parallel=1))


async def test_a_file_that_cannot_be_removed_does_not_hide_what_became_of_a_call(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = engine(reaper, program(tmp_path, "echo it is busy >&2; exit 1"), tmp_path)
    monkeypatch.setattr(Path, "unlink", _read_only)
    with pytest.raises(Unexpected, match="it is busy"):
        await called.pause("one")
    with pytest.raises(Unexpected, match="it is busy"):
        await called.create("one", tmp_path, fds={})


async def test_what_cannot_be_written_for_the_engine_is_the_nodes_fault(
    reaper: Reaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = engine(reaper, program(tmp_path, "exit 0"), tmp_path)
    monkeypatch.setattr(Path, "write_bytes", _read_only)
    with pytest.raises(NodeFault, match="Read-only file system"):
        await called.update("one", b"{}")
    with pytest.raises(NodeFault, match="Read-only file system"):
        await called.exec("one", "more", b"{}", fds={})


def _read_only(*arguments: object, **options: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
