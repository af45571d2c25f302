"""A Hermit guest's command line: golden ones, and that a shell's reader of words reads back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import Dns, GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.interfaces import ETH0, NAMES, NET1, NO_ADDRESS, NO_GATEWAY, TEXT

_HERMIT = guests()["hermit"]


def shell_reads(line: str) -> list[str]:
    """The words that a POSIX shell makes of a line without expanding any (Shell Command Language, 2.2 and 2.3)."""
    found: list[str] = []
    word: str | None = None
    position = 0
    while position < len(line):
        character = line[position]
        position += 1
        if character in " \t\n":
            if word is not None:
                found.append(word)
            word = None
        elif character == "#" and word is None:
            position = (line + "\n").index("\n", position)
        elif character == "'":
            end = line.index("'", position)
            word, position = (word or "") + line[position:end], end + 1
        elif character == "\\":
            word, position = (word or "") + line[position], position + 1
        elif character == '"':
            word = word or ""
            while (character := line[position]) != '"':
                position += 1
                if character == "\\" and line[position] in '$`"\\\n':
                    character, position = line[position], position + 1
                word += character
            position += 1
        else:
            word = (word or "") + character
    return found if word is None else [*found, word]


class Environment:
    """What src/env/mod.rs of Hermit's kernel makes of its words."""

    def __init__(self, line: str) -> None:
        self.variables: dict[str, str] = {}
        self.arguments: list[str] = []
        words = iter(shell_reads(line))
        for word in words:
            if word in ("-ip", "-mask", "-gateway"):
                self.variables[f"HERMIT_{word[1:].upper()}"] = next(words)
            elif word == "--":
                self.arguments += words
            else:
                kind, _, variable = word.partition("=")
                assert kind == "env"
                name, equals, value = variable.partition("=")
                assert equals
                self.variables[name] = value


_CASES = {
    "nothing": GuestSpec(),
    "network": GuestSpec(interfaces=(ETH0,), hostname="web-0"),
    "no-gateway": GuestSpec(interfaces=(NO_GATEWAY,)),
    "no-address": GuestSpec(interfaces=(NO_ADDRESS,)),
    "dns": GuestSpec(interfaces=(ETH0,), dns=Dns(servers=("fd00::a", "10.96.0.10", "1.1.1.1", "8.8.8.8"))),
    "own-dns": GuestSpec(
        interfaces=(ETH0,), dns=Dns(servers=("10.96.0.10",)), environment={"HERMIT_DNS1": "9.9.9.9", "HERMIT_IP": "x"}
    ),
    "quoting": GuestSpec(
        environment={"A": "b c", "EMPTY": "", "JSON": '{"a": [1]}'},
        arguments=("-x", "--", "it's", 'say "hi"', "{b}", "$HOME", "back\\slash", "", "#no", "à"),
    ),
    "cmdline": GuestSpec(cmdline="-freq 2000 'env=X=a b'", arguments=("a",)),
    "cmdline-with-arguments": GuestSpec(cmdline="-freq 2000 -- first", arguments=("second",)),
    "volumes": GuestSpec(
        volumes=(
            Volume(target="/data", format="virtiofs", device="/data"),
            Volume(target="", format="", disk=0),
        )
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_golden(case: str) -> None:
    golden.check(_HERMIT, case, _CASES[case])


def test_golden_files() -> None:
    golden.check_files(_HERMIT, _CASES)


@given(arguments=st.lists(TEXT, max_size=8), environment=st.dictionaries(NAMES, TEXT, max_size=8))
def test_what_goes_in_comes_out(arguments: list[str], environment: dict[str, str]) -> None:
    spec = GuestSpec(arguments=tuple(arguments), environment=environment)
    found = Environment(" ".join(_HERMIT.words(spec)))
    assert (found.arguments, found.variables) == (arguments, environment)


@given(environment=st.dictionaries(st.sampled_from(["HERMIT_IP", "HERMIT_MASK", "HERMIT_MTU", "A"]), TEXT))
def test_the_pods_address_counts(environment: dict[str, str]) -> None:
    """Whatever the container's environment says; of its own settings it may have others."""
    found = Environment(" ".join(_HERMIT.words(GuestSpec(interfaces=(ETH0,), environment=environment)))).variables
    address = {"HERMIT_IP": "10.1.2.3", "HERMIT_MASK": "255.255.255.248", "HERMIT_GATEWAY": "10.1.2.1"}
    assert found == {"HERMIT_MTU": "1450"} | environment | address


@pytest.mark.parametrize(
    ("spec", "subject", "why"),
    [
        (GuestSpec(arguments=("a\0b",)), "args", "NUL"),
        (GuestSpec(environment={"A": "a\0b"}), "env A", "NUL"),
        (GuestSpec(environment={"": "1"}), "env ", "not empty"),
        (GuestSpec(environment={"a=b": "1"}), "env a=b", "no ="),
        (GuestSpec(cmdline="env='x"), "io.unikernel.cmdline", "No closing quotation"),
        (GuestSpec(interfaces=(ETH0, NET1)), "net1", "one NIC"),
        (GuestSpec(volumes=(Volume(target="/", format="ext4", disk=0),)), "/", "no disks"),
        (GuestSpec(volumes=(Volume(target="/data", format="9p", device="t"),)), "/data", "no disks"),
        (GuestSpec(volumes=(Volume(target="/data", format="virtiofs", device="t"),)), "/data", "at 't'"),
    ],
)
def test_what_cannot_be_said(spec: GuestSpec, subject: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        _HERMIT.words(spec)
    assert caught.value.subject == subject
