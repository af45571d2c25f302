"""What doctor prints of containerd's configuration is what contrib/containerd has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from shim.config import Config
from shim.doctor import stanzas

CONTRIB = Path(__file__).parents[3] / "contrib" / "containerd"
SOCKET = Config().grpc_socket


@pytest.mark.parametrize("file", sorted(CONTRIB.glob("*.toml")), ids=lambda file: file.name)
def test_contribs_files_say_the_same(file: Path) -> None:
    said = tomllib.loads(file.read_text())
    table = stanzas.RUNTIME_TABLE if said.get("version") == 3 else stanzas.CRI_TABLE
    runtimes = said["plugins"][table]["containerd"]["runtimes"]
    assert runtimes
    for name, entry in runtimes.items():
        sandboxer = entry.pop("sandboxer", "podsandbox")
        ours = tomllib.loads(stanzas.stanza(sandboxer, table, SOCKET))
        assert name == stanzas.handler(sandboxer, table)
        (own,) = ours["plugins"][table]["containerd"]["runtimes"].values()
        own.pop("sandboxer", None)
        assert entry == own
        if sandboxer == stanzas.PLUGIN:
            assert said["proxy_plugins"] == ours["proxy_plugins"]


def test_all_ways_of_being_asked_are_in_contrib() -> None:
    found: dict[str, set[str]] = {}
    for file in CONTRIB.glob("*.toml"):
        said = tomllib.loads(file.read_text())
        for table, section in said["plugins"].items():
            found.setdefault(table, set()).update(section["containerd"]["runtimes"])
    assert found == {stanzas.RUNTIME_TABLE: set(stanzas.HANDLERS.values()), stanzas.CRI_TABLE: {"unikernel"}}


@pytest.mark.parametrize("word", ["plain-1_a", "a.b", 'a"b', "a\nb", "a\\b", "é"])
def test_names_come_out_as_they_went_in(word: str) -> None:
    def runtimes(text: str) -> Any:
        return tomllib.loads(text)["plugins"]["t"]["containerd"]["runtimes"]

    assert runtimes(stanzas.runtime(word, word, "t"))[word]["sandboxer"] == word
    assert list(runtimes(stanzas.ordinary(word, "t"))) == [word]
    assert tomllib.loads(stanzas.plugin(Path("/") / word, word))["proxy_plugins"][word]["address"] == f"/{word}"
    assert all(text.isprintable() for text in stanzas.runtime(word, word, "t").splitlines())
