"""A Nabla guest's command line: golden ones, and that rumprun reads back what was written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.dual_stack import DNS, DUAL, SIX
from tests.unit.guests.interfaces import ETH0, NET1, NET1_ROUTED, NO_ADDRESS, TEXT

_RUMPRUN = guests()["rumprun"]
_ROOT = Volume(target="/", format="iso9660", disk=0, device="rootfs")
_DATA = Volume(target="/data", format="ext2", disk=0, device="rootfs", read_only=False)

CASES = {
    "nothing": GuestSpec(),
    "nabla": GuestSpec(
        program="/node.nabla",
        arguments=("/app/app.js", "--port", "8080"),
        environment={"PATH": "/usr/bin:/bin", "GREETING": "hello, world"},
        hostname="web-0",
        interfaces=(ETH0,),
        dns=DNS,
        volumes=(_ROOT,),
        cwd="/app",
    ),
    "routed": GuestSpec(arguments=("x",), interfaces=(NET1_ROUTED,)),
    "dual": GuestSpec(arguments=("x",), interfaces=(DUAL,)),
    "six": GuestSpec(interfaces=(SIX,)),
    "no-address": GuestSpec(interfaces=(NO_ADDRESS,)),
    "no-gateway": GuestSpec(interfaces=(NET1,)),
    "data": GuestSpec(program="redis-server", arguments=("/data/conf/redis.conf",), volumes=(_DATA,)),
    "device": GuestSpec(volumes=(Volume(target="", format="", disk=0, device="rootfs"),), cwd="/nowhere"),
    "quoting": GuestSpec(
        arguments=("", "a b", '{"a": [1, "b c"]}', "c:\\dir", "é ü", "{}"),
        environment={"JSON": "{a: b}", "EMPTY": "", "PATTERN": r"\\d\/\n", "NAME": "Zoë"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    golden.check(_RUMPRUN, case, CASES[case])


def test_golden_files() -> None:
    golden.check_files(_RUMPRUN, CASES)


def members(text: str) -> list[tuple[str, str | list[tuple[str, str]]]]:
    """An object as jsmn sees it: strings and objects of strings, in their order, no escape undone."""
    found: list[tuple[str, str | list[tuple[str, str]]]] = []
    rest = text[1:]
    assert text.startswith("{")
    while not rest.startswith("}"):
        key, rest = string(rest.removeprefix(","))
        rest = rest.removeprefix(":")
        if rest.startswith("{"):
            inner: list[tuple[str, str]] = []
            rest = rest[1:]
            while not rest.startswith("}"):
                name, rest = string(rest.removeprefix(","))
                value, rest = string(rest.removeprefix(":"))
                inner.append((name, value))
            found.append((key, inner))
            rest = rest[1:]
        else:
            value, rest = string(rest)
            found.append((key, value))
    assert rest == "}"
    return found


def string(text: str) -> tuple[str, str]:
    """The string at the text's beginning, and what follows; what jsmn refuses fails."""
    assert text[0] == '"'
    position = 1
    while text[position] != '"':
        if text[position] == "\\":
            position += 1
            if text[position] == "u":
                assert re.fullmatch("[0-9A-Fa-f]{4}", text[position + 1 : position + 5])
                position += 4
            else:
                assert text[position] in '"/\\bfrnt'
        position += 1
    return text[1:position], text[position + 1 :]


def arguments_of(text: str) -> list[str]:
    """The words that rumprun_parseargs() makes of `cmdline`."""
    found: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position <= len(text):
        read = text[position : position + 1]
        meant = read
        position += 1
        if read == "\\":
            meant = text[position : position + 1]
            position += 1
        if meant == "" or read in (" ", "\n", "\t"):
            if (meant == "" or not quote) and word is not None:
                found.append(word)
                word, quote = None, ""
            if meant == "":
                break
            if word is None:
                continue
        word = "" if word is None else word
        if quote and read == quote:
            quote = ""
        elif read in ("'", '"'):
            quote = read
        else:
            word += meant
    return found


def read(spec: GuestSpec) -> list[tuple[str, str | list[tuple[str, str]]]]:
    [word] = _RUMPRUN.words(spec)
    return members(word)


# Hypothesis tries the sources' own constants, and finds the one that rumprun looks for.
_TEXT = TEXT.filter(lambda text: "_RUMPRUN_ROOTFSCFG" not in text)
_SPECIAL = st.text(st.sampled_from(list('a \t\n"\\{}[]:,ué/n$`;\x7f')), max_size=12)


@given(st.lists(_TEXT.filter(lambda text: "'" not in text) | _SPECIAL, max_size=6))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    [(key, value)] = read(GuestSpec(arguments=tuple(arguments)))
    assert key == "cmdline" and isinstance(value, str)
    assert arguments_of(value) == ["rumprun", *arguments]


@given(st.dictionaries(st.from_regex("[A-Za-z_.][A-Za-z0-9_.-]*", fullmatch=True), _TEXT | _SPECIAL, max_size=5))
def test_variables_come_out_as_they_went_in_or_are_refused(environment: dict[str, str]) -> None:
    try:
        found = read(GuestSpec(environment=environment))
    except InvalidRequest as refusal:
        value = environment[refusal.subject.removeprefix("env ")]
        with pytest.raises((AssertionError, IndexError)):
            assert string(f'"{value}"') == (value, "")
        return
    assert found[1:] == [("env", f"{name}={value}") for name, value in environment.items()]


def test_the_disk_is_mounted_before_the_guest_goes_there() -> None:
    keys = [key for key, _ in read(CASES["nabla"])]
    assert keys.index("blk") < keys.index("cwd")


def test_an_interface_is_created_once() -> None:
    nets = [dict(value) for key, value in read(CASES["dual"]) if key == "net" and isinstance(value, list)]
    assert [("cloner" in net, net["type"]) for net in nets] == [(True, "inet"), (False, "inet6")]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (GuestSpec(arguments=("it's",)), r"args: .* single quote .*it's"),
        (GuestSpec(arguments=("a\0b",)), "NUL"),
        (GuestSpec(program="it's"), "single quote"),
        (GuestSpec(environment={"A": 'say "x"'}), r"env A: .* double quote"),
        (GuestSpec(environment={"A": "c:\\data"}), r"env A: .* lone backslash .*c:"),
        (GuestSpec(environment={"A": "end\\"}), "env A"),
        (GuestSpec(environment={"A": "\\u12"}), "env A"),
        (GuestSpec(environment={"A=B": "c"}), "env A=B"),
        (GuestSpec(hostname='"'), "hostname"),
        (GuestSpec(environment={"_RUMPRUN_ROOTFSCFG": "/x"}), "env _RUMPRUN_ROOTFSCFG: "),
        (GuestSpec(arguments=("--a=_RUMPRUN_ROOTFSCFG=/x",)), "args: "),
        (GuestSpec(interfaces=(ETH0, NET1)), r"eth0, net1: .* one NIC; choose one with io\.unikernel\.nics"),
        (GuestSpec(volumes=(_ROOT, _DATA)), "/, /data: .* one disk"),
        (GuestSpec(volumes=(Volume(target="/", format="ext4", disk=0),)), "iso9660 or ext2 from a disk, not ext4"),
        (GuestSpec(volumes=(Volume(target="/d", format="9p", device="d"),)), "not 9p"),
        (GuestSpec(volumes=(Volume(target='/"', format="ext2", disk=0),)), "mount: "),
        (GuestSpec(arguments=("x" * 8192,)), "fewer than 8192"),
    ],
)
def test_what_cannot_be_said_is_refused(spec: GuestSpec, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        _RUMPRUN.words(spec)


def test_the_limit_is_of_bytes() -> None:
    room = 8191 - len(_RUMPRUN.words(GuestSpec(arguments=("",)))[0]) + len("''")
    [word] = _RUMPRUN.words(GuestSpec(arguments=("x" * room,)))
    assert len(word) == 8191
    with pytest.raises(InvalidRequest):
        _RUMPRUN.words(GuestSpec(arguments=("é" * (room // 2 + 1),)))
