"""The courier's command line, and the answer each containerd understands."""

from __future__ import annotations

import json

import pytest

from shim.errors import InvalidRequest, Unreachable
from shim.services.bootstrap import parse, start_answer
from shim.services.versions import Versions
from shim.services.versions import parse as parse_version


def test_the_flags_containerd_passes() -> None:
    flags = parse(
        [
            "shim",
            "-namespace",
            "k8s.io",
            "-address",
            "/c.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "abc",
            "-debug",
            "start",
        ]
    )
    assert (flags.action, flags.namespace, flags.address, flags.id, flags.debug) == (
        "start",
        "k8s.io",
        "/c.sock",
        "abc",
        True,
    )
    assert parse(["shim", "--id=abc", "-bundle=/b", "delete"]).bundle == "/b"
    assert parse(["shim", "-v"]).version and parse(["shim", "-info"]).info
    assert not parse(["shim", "-debug=false"]).debug


@pytest.mark.parametrize(
    ("argv", "word"),
    [("shim -colour red", "-colour"), ("shim -id", "value"), ("shim start stop", "more than one")],
)
def test_flags_that_make_no_sense(argv: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        parse(argv.split())


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.6.20~ds1", (1, 6)), ("v2.1.9", (2, 1)), ("1.7.24~ds1", (1, 7)), ("2.3.0-beta.0", (2, 3)), ("dev", (0, 0))],
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_each_containerd_gets_the_form_it_understands() -> None:
    assert start_answer((1, 6), "unix:///s") == b"unix:///s"
    assert json.loads(start_answer((1, 7), "unix:///s")) == {"version": 2, "address": "unix:///s", "protocol": "ttrpc"}
    assert json.loads(start_answer((2, 1), "unix:///s"))["version"] == 3
    assert json.loads(start_answer((0, 0), "unix:///s"))["version"] == 2


async def test_a_version_is_asked_once_for_each_socket(tmp_path) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []

    async def ask(address: str) -> str:
        asked.append(address)
        if len(asked) > 2:
            raise Unreachable("away")
        return "2.1.9"

    versions = Versions(ask)
    socket = tmp_path / "c.sock"
    socket.touch()
    assert await versions.of(str(socket)) == (2, 1)
    assert await versions.of(f"unix://{socket}") == (2, 1)
    assert await versions.of(str(socket)) == (2, 1)
    assert len(asked) == 2, "once for each way to write the address"
    other = tmp_path / "d.sock"
    other.touch()
    other.rename(socket)  # another socket at the same address: an upgrade
    assert await versions.of(str(socket)) == (0, 0), "asked again, and it does not answer"
    assert await versions.of("/no/such") == (0, 0)
    assert await versions.of("") == (0, 0)
