"""A Mirage guest's command line: golden ones, and that Parse_argv reads back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.dual_stack import DNS, DUAL, SIX
from tests.unit.guests.interfaces import ETH0, NET1, NET1_ROUTED, NO_ADDRESS, TEXT

_MIRAGE = guests()["mirage"]

CASES = {
    "nothing": GuestSpec(environment={"A": "1"}, hostname="web-0", dns=DNS),
    "four": GuestSpec(
        arguments=("-l", "*:debug", "--hello=Ciao"), interfaces=(ETH0,), dns=DNS, program="x", devices=("service",)
    ),
    "named": GuestSpec(interfaces=(ETH0,), hostname="web-0", version="4.10.2"),
    "not-named": GuestSpec(interfaces=(ETH0,), hostname="web-0", version="4.9.0"),
    "routed": GuestSpec(interfaces=(NET1_ROUTED,), devices=("private",)),
    "dual": GuestSpec(arguments=("--", "--ipv7"), interfaces=(DUAL,)),
    "six": GuestSpec(interfaces=(SIX,)),
    "no-address": GuestSpec(interfaces=(NO_ADDRESS,)),
    "two": GuestSpec(interfaces=(ETH0, NET1), devices=("service", "private")),
    "two-groups": GuestSpec(interfaces=(DUAL, NET1), devices=("outer", "inner")),
    "said": GuestSpec(arguments=("--ipv4=10.9.9.9/24", "--ipv4-gateway", "10.9.9.1"), interfaces=(ETH0,)),
    "block": GuestSpec(volumes=(Volume(target="", format="", disk=0, device="storage"),)),
    "quoting": GuestSpec(arguments=("--a=b c", '--json={"a": "b"}', "c:\\dir", "it's", "é ü", "{}", "x\ty")),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    golden.check(_MIRAGE, case, CASES[case])


def test_golden_files() -> None:
    golden.check_files(_MIRAGE, CASES)


def parse_argv(text: str) -> list[str]:
    """The words that Parse_argv makes of a command line; what it refuses fails."""
    found: list[str] = []
    word, quoted, escaped = "", False, False
    for character in text:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == " " and not quoted:
            found += [word] if word else []
            word = ""
        else:
            word += character
    assert not quoted and not escaped
    return found + ([word] if word else [])


_SPECIAL = st.text(st.sampled_from(list("a \t\n\"\\'{}[]:=-é$`;\x7f")), max_size=12)


@given(st.lists((TEXT | _SPECIAL).filter(bool), max_size=6))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    assert parse_argv(" ".join(_MIRAGE.words(GuestSpec(arguments=tuple(arguments))))) == arguments


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (GuestSpec(arguments=("a", "")), r"args: .* empty word or NUL \(''\)"),
        (GuestSpec(arguments=("a\0",)), "NUL"),
        (GuestSpec(interfaces=(ETH0, NET1)), r"eth0, net1: .* choose one with io\.unikernel\.nics"),
        (GuestSpec(hostname="a b", version="v4.11.0"), "hostname"),
        (GuestSpec(volumes=(Volume(target="/data", format="ext4", disk=0),)), "/data: .* mounts nothing"),
        (GuestSpec(arguments=("x" * 8192,)), "8192 bytes"),
    ],
)
def test_what_cannot_be_said_is_refused(spec: GuestSpec, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        _MIRAGE.words(spec)
