"""An OSv guest's command line: golden ones, and that OSv's two readers read back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import Dns, GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.interfaces import ETH0, NAMES, NET1, NET1_OUT, NET1_ROUTED, NO_ADDRESS, TEXT

_OSV = guests()["osv"]
_COMMAND = ("/hello.so",)


def options_read(line: str) -> tuple[list[str], str]:
    """The options, and the command behind them: written from loader_parse_cmdline()'s behaviour."""
    options: list[str] = []
    while (rest := line.lstrip(" \t\n")).startswith("-"):
        option, position = "", 0
        while position < len(rest) and rest[position] not in " \t\n":
            position += rest[position] == "\\"
            option += rest[position]
            position += 1
        options.append(option)
        line = rest[position:]
    return options, line


def command_read(line: str) -> list[str]:
    """The words of one command: written from the grammar in core/commands.cc. Words with a $ it would change."""
    codes = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
    found: list[str] = []
    position = 0

    def one() -> str:
        nonlocal position
        character = line[position]
        if character == "\\" and line[position + 1 : position + 2] in codes and position + 1 < len(line):
            position += 1
            character = codes[line[position]]
        position += 1
        assert character.isascii()
        return character

    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        word = ""
        if line[position] == '"':
            position += 1
            while line[position] != '"':
                word += one()
            position += 1
        else:
            while position < len(line) and line[position] not in " ;&!":
                word += one()
            assert word, "a command ends here"
        assert "$" not in word
        found.append(word)
    return found


_CASES = {
    "command": GuestSpec(arguments=_COMMAND),
    "network": GuestSpec(arguments=_COMMAND, interfaces=(ETH0,), hostname="web-0"),
    "two-nics": GuestSpec(arguments=_COMMAND, interfaces=(NET1, ETH0)),
    "two-gateways": GuestSpec(arguments=_COMMAND, interfaces=(ETH0, NET1_OUT)),
    "no-address": GuestSpec(arguments=_COMMAND, interfaces=(NO_ADDRESS,)),
    "no-address-first": GuestSpec(arguments=_COMMAND, interfaces=(NO_ADDRESS, NET1)),
    "dns": GuestSpec(arguments=_COMMAND, interfaces=(ETH0,), dns=Dns(servers=("fd00::a", "10.96.0.10", "1.1.1.1"))),
    "quoting": GuestSpec(
        environment={"A": "b c", "EMPTY": "", "JSON": '{"a": [1]}', "PRICE": "$5", "WORD": "à\\b"},
        arguments=("-x", "--", "it's", 'say "hi"', "{b}", "a;b&c!", "back\\slash", "", "a\nb\tc", "a=b"),
    ),
    "cmdline": GuestSpec(cmdline=" --verbose --nopci ", arguments=_COMMAND),
    "cmdline-with-command": GuestSpec(cmdline='--verbose /hello.so "a  b"', arguments=("c",)),
    "root-disk": GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/", format="rofs", disk=0),)),
    "root-ext": GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/", format="ext4", disk=0),)),
    "root-to-be-found": GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/", format="", disk=0),)),
    "volumes": GuestSpec(
        arguments=_COMMAND,
        volumes=(
            Volume(target="/", format="virtiofs", device="root"),
            Volume(target="/data", format="ext4", disk=0),
            Volume(target="", format="", disk=1),
            Volume(target="/my data", format="ext2", disk=2, read_only=False),
            Volume(target="/shared", format="virtiofs", device="shared"),
        ),
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_golden(case: str) -> None:
    golden.check(_OSV, case, _CASES[case])


def test_golden_files() -> None:
    golden.check_files(_OSV, _CASES)


_ASCII = st.text(st.characters(max_codepoint=127, exclude_characters="\0$"), max_size=20)


@given(
    arguments=st.lists(_ASCII, min_size=1, max_size=8),
    environment=st.dictionaries(NAMES, TEXT, max_size=8),
)
def test_what_goes_in_comes_out(arguments: list[str], environment: dict[str, str]) -> None:
    options, command = options_read(
        " ".join(_OSV.words(GuestSpec(arguments=tuple(arguments), environment=environment)))
    )
    assert options[1:] == [f"--env={name}={value}" for name, value in environment.items()]
    assert command_read(command) == arguments


@pytest.mark.parametrize(
    ("spec", "subject", "why"),
    [
        (GuestSpec(), "args", "without a command"),
        (GuestSpec(cmdline="--verbose"), "args", "without a command"),
        (GuestSpec(arguments=("a\0b",)), "args", "a NUL"),
        (GuestSpec(arguments=("a", "$HOME")), "args", r"'\$HOME'"),
        (GuestSpec(arguments=("a", "à")), "args", "'à' is not"),
        (GuestSpec(arguments=_COMMAND, environment={"A": "a\0b"}), "env A", "NUL"),
        (GuestSpec(arguments=_COMMAND, environment={"": "1"}), "env ", "not empty"),
        (GuestSpec(arguments=_COMMAND, environment={"a=b": "1"}), "env a=b", "no ="),
        (GuestSpec(arguments=_COMMAND, interfaces=(ETH0, NET1_ROUTED)), "net1", "one gateway only"),
        (
            GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/", format="erofs", disk=0),)),
            "/",
            "erofs as its root",
        ),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/", format="rofs", disk=1),)), "/", "/dev/vblk1"),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/d", format="erofs", disk=1),)), "/d", "mount erofs"),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/d", format="9p", device="t"),)), "/d", "mount 9p"),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/d", format="", disk=1),)), "/d", "unknown format"),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="/a,b", format="ext4", disk=1),)), "/a,b", "'/a,b'"),
        (GuestSpec(arguments=_COMMAND, volumes=(Volume(target="d", format="ext4", disk=1),)), "d", "'d'"),
    ],
)
def test_what_cannot_be_said(spec: GuestSpec, subject: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        _OSV.words(spec)
    assert caught.value.subject == subject
