"""A Mirage guest's command line: golden ones, and that Parse_argv reads back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.nics import DNS, DUAL, FOUR, NOTHING, ROUTED, SECOND, SIX

_MIRAGE = guests()["mirage"]

CASES = {
    "nothing": GuestSpec(environment={"A": "1"}, hostname="web-0", dns=DNS),
    "four": GuestSpec(
        arguments=("-l", "*:debug", "--hello=Ciao"), interfaces=(FOUR,), dns=DNS, program="x", devices=("service",)
    ),
    "named": GuestSpec(interfaces=(FOUR,), hostname="web-0", version="4.10.2"),
    "not-named": GuestSpec(interfaces=(FOUR,), hostname="web-0", version="4.9.0"),
    "routed": GuestSpec(interfaces=(ROUTED,), devices=("private",)),
    "dual": GuestSpec(arguments=("--", "--ipv7"), interfaces=(DUAL,)),
    "six": GuestSpec(interfaces=(SIX,)),
    "no-address": GuestSpec(interfaces=(NOTHING,)),
    "two": GuestSpec(interfaces=(FOUR, SECOND), devices=("service", "private")),
    "two-groups": GuestSpec(interfaces=(DUAL, SECOND), devices=("outer", "inner")),
    "cmdline": GuestSpec(cmdline=r'--hello="two words"  --ipv4-gateway=10.1.2.2 --a=\"', interfaces=(FOUR,)),
    "said": GuestSpec(arguments=("--ipv4=10.9.9.9/24", "--ipv4-gateway", "10.9.9.1"), interfaces=(FOUR,)),
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


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
_SPECIAL = st.text(st.sampled_from(list("a \t\n\"\\'{}[]:=-é$`;\x7f")), min_size=1, max_size=12)


@given(st.lists(_TEXT | _SPECIAL, max_size=6))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    assert parse_argv(" ".join(_MIRAGE.words(GuestSpec(arguments=tuple(arguments))))) == arguments


@given(_SPECIAL, st.lists(_SPECIAL, max_size=3))
def test_verbatim_words_leave_the_others_alone_or_are_refused(cmdline: str, arguments: list[str]) -> None:
    spec = GuestSpec(cmdline=cmdline, arguments=tuple(arguments), interfaces=(FOUR,))
    try:
        words = _MIRAGE.words(spec)
    except InvalidRequest:
        with pytest.raises(AssertionError):
            parse_argv(cmdline)
        return
    found = parse_argv(" ".join(words))
    assert found[-len(arguments) or len(found) :] == arguments
    assert found == [
        "--ipv4=10.1.2.3/29", "--ipv4-gateway=10.1.2.1", *parse_argv(cmdline), *arguments
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (GuestSpec(arguments=("a", "")), r"args: .* empty word or NUL \(''\)"),
        (GuestSpec(arguments=("a\0",)), "NUL"),
        (GuestSpec(cmdline='--a="b'), "io.unikernel.cmdline: .* not closed"),
        (GuestSpec(cmdline="a\\"), "io.unikernel.cmdline"),
        (GuestSpec(interfaces=(FOUR, SECOND)), r"eth0, net1: .* choose one with io\.unikernel\.nics"),
        (GuestSpec(hostname="a b", version="v4.11.0"), "hostname"),
        (GuestSpec(volumes=(Volume(target="/data", format="ext4", disk=0),)), "/data: .* mounts nothing"),
        (GuestSpec(arguments=("x" * 8192,)), "8192 bytes"),
    ],
)
def test_what_cannot_be_said_is_refused(spec: GuestSpec, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        _MIRAGE.words(spec)
