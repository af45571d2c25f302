"""Versions of monitors: read off what programs say, asked once for each program file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shim.errors import NodeFault
from shim.monitors.version import Version, Versions, parse
from shim.process.spawn import Completed
from tests.unit.monitors.fake import FakeRun, program


def versions(said: str, status: int = 0) -> tuple[Versions, FakeRun]:
    run = FakeRun(lambda argv: Completed(status, said.encode(), b""))
    return Versions("monitor", (1, 5), run), run


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Firecracker v1.12.1\n\n2026-01-01T00:00:00.5 exiting", (1, 12)),
        ("Firecracker v1.17.0-dev", (1, 17)),
        ("cloud-hypervisor v51.2", (51, 2)),
        ("cloud-hypervisor v51.2-3-g0123456-dirty", (51, 2)),
        ("cloud-hypervisor 53.0.0", (53, 0)),
        ("usage: something", None),
        ("", None),
    ],
)
def test_what_programs_say(said: str, version: Version | None) -> None:
    assert parse(said) == version


async def test_a_program_is_asked_once_until_it_is_replaced(tmp_path: Path) -> None:
    path = program(tmp_path, "monitor")
    found, run = versions("monitor v1.5.0")
    for _ in range(3):
        assert await found.of(path) == (1, 5)
    assert run.asked == [(os.fspath(path), "--version")]
    path.unlink()
    program(tmp_path, "monitor").write_text("newer")
    run.answer = lambda argv: Completed(0, b"", b"monitor v1.6.0")
    assert await found.of(path) == (1, 6)


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("monitor v1.4.9", 0, r"monitor 1\.4 is too old: 1\.5 or newer is needed"),
        ("something else\nentirely", 0, "does not say which version of monitor it is: 'something else'"),
        ("error while loading shared libraries", 127, "does not start: error while loading"),
        ("", 1, "does not start: exit status 1"),
    ],
)
async def test_what_will_not_do(tmp_path: Path, said: str, status: int, words: str) -> None:
    path = program(tmp_path, "monitor")
    found, run = versions(said, status)
    for _ in range(2):
        with pytest.raises(NodeFault, match=words) as raised:
            await found.of(path)
        assert raised.value.subject == os.fspath(path)
    assert len(run.asked) == 2, "a refusal is not remembered: the node may be put right"
