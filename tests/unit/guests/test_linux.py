"""A Linux guest's command line: golden ones, and that the kernel reads back what was written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import GuestSpec
from shim.guests.registry import guests
from shim.network.view import GuestInterface

_LINUX = guests()["linux"]
_ALWAYS = "console=ttyS0 quiet panic=-1 reboot=t"
_ETH0 = GuestInterface(
    name="eth0",
    mac="02:00:00:00:00:01",
    mtu=1450,
    address=IPv4Interface("10.1.2.3/29"),
    gateway=IPv4Address("10.1.2.1"),
)
_NO_GATEWAY = GuestInterface(name="eth0", mac=_ETH0.mac, mtu=1500, address=_ETH0.address)
_NO_ADDRESS = GuestInterface(name="eth0", mac=_ETH0.mac, mtu=1500)

_SPACES = " \t\n\v\f\r\xa0"


def kernel_reads(line: str) -> list[str]:
    """The words that Linux makes of a command line, written from next_arg()'s behaviour: bytes are Latin-1 to it, a
    quote toggles, and one pair around a word or around the value behind its first `=` is taken off."""
    text = line.encode().decode("latin-1")
    found = []
    while text := text.lstrip(_SPACES):
        quoted = text[0] == '"'
        text = text[1:] if quoted else text
        inside, end = quoted, 0
        while end < len(text) and (inside or text[end] not in _SPACES):
            inside ^= text[end] == '"'
            end += 1
        word, text = text[:end], text[end:]
        name, equals, value = word.partition("=")
        if equals and value.startswith('"'):
            value = value[1:].removesuffix('"')
        if quoted and not equals:
            name = name.removesuffix('"')
        elif quoted:
            value = value.removesuffix('"')
        found.append((name + equals + value).encode("latin-1").decode())
    return found


def line(spec: GuestSpec) -> str:
    return " ".join(_LINUX.words(spec))


@pytest.mark.parametrize(
    ("spec", "golden"),
    [
        (GuestSpec(), _ALWAYS),
        (
            GuestSpec(interfaces=(_ETH0,), hostname="web-0"),
            f"{_ALWAYS} ip=10.1.2.3::10.1.2.1:255.255.255.248:web-0:eth0:off",
        ),
        (GuestSpec(interfaces=(_NO_GATEWAY,)), f"{_ALWAYS} ip=10.1.2.3:::255.255.255.248::eth0:off"),
        (GuestSpec(interfaces=(_NO_ADDRESS,)), f"{_ALWAYS} ip=:::::eth0:off"),
        (GuestSpec(cmdline="  debug   rdinit=/x "), f"{_ALWAYS} debug rdinit=/x"),
        (GuestSpec(arguments=("-c", "echo a b", "")), f'{_ALWAYS} -- -c "echo a b" ""'),
        (GuestSpec(arguments=("--opt=a b", "x y=z")), f'{_ALWAYS} -- --opt="a b" "x y=z"'),
        (
            GuestSpec(environment={"PATH": "/bin", "A": "1", "B": "x y", "HOSTNAME": "n", "C": ""}),
            f'{_ALWAYS} A=1 B="x y" C=',
        ),
        (
            GuestSpec(cmdline='dyndbg="file a +p" -- first', environment={"A": "1"}, arguments=("second",)),
            f'{_ALWAYS} A=1 dyndbg="file a +p" -- first second',
        ),
        (GuestSpec(arguments=("à",)), f'{_ALWAYS} -- "à"'),
    ],
)
def test_golden(spec: GuestSpec, golden: str) -> None:
    assert line(spec) == golden


def test_one_interface_is_configured() -> None:
    assert line(GuestSpec(interfaces=(_ETH0, _ETH0))).count("ip=") == 1


# What a command line can hold: no control characters that end it, and no double quote.
_TEXT = st.text(st.characters(exclude_characters='"\0\n\r', exclude_categories=["Cs"]), max_size=20)


@given(arguments=st.lists(_TEXT.filter(lambda text: text != "--"), max_size=8))
def test_arguments_come_out_as_they_went_in(arguments: list[str]) -> None:
    words = kernel_reads(line(GuestSpec(arguments=tuple(arguments))))
    assert words[4:] == (["--", *arguments] if arguments else [])


@given(environment=st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), _TEXT, max_size=8))
def test_the_environment_comes_out_as_it_went_in(environment: dict[str, str]) -> None:
    for name in ("PATH", "HOME", "TERM", "HOSTNAME"):
        environment.pop(name, None)
    words = kernel_reads(line(GuestSpec(environment=environment)))
    assert words[4:] == [f"{name}={value}" for name, value in environment.items()]


@pytest.mark.parametrize(
    ("spec", "subject", "why"),
    [
        (GuestSpec(arguments=('say "hi"',)), "args", "double quote"),
        (GuestSpec(arguments=("a\nb",)), "args", "line break"),
        (GuestSpec(arguments=("a\0b",)), "args", "NUL"),
        (GuestSpec(arguments=("a", "--", "b")), "args", "second --"),
        (GuestSpec(arguments=("a",) * 32), "args", "32 are more than the 31"),
        (GuestSpec(environment={"A": 'x"y'}), "env A", "double quote"),
        (GuestSpec(environment={"A": "x\ny"}), "env A", "line break"),
        (GuestSpec(environment={"a.b": "1"}), "env a.b", "cannot be told"),
        (GuestSpec(environment={"a b": "1"}), "env a b", "cannot be told"),
        (GuestSpec(environment={"": "1"}), "env ", "cannot be told"),
        (GuestSpec(environment={"ip": "off"}), "env ip", "parameter of its own"),
        (GuestSpec(environment={f"E{n}": "1" for n in range(31)}), "env", "enableServiceLinks"),
        (GuestSpec(cmdline='a="b'), "io.unikernel.cmdline", "not closed"),
        (GuestSpec(cmdline="a\nb"), "io.unikernel.cmdline", "line break"),
        (GuestSpec(arguments=("x" * 2000,)), "args and env", "takes fewer than 1984"),
        (GuestSpec(interfaces=(_ETH0,), hostname="a b"), "hostname", "'a b'"),
        (GuestSpec(interfaces=(_ETH0,), hostname="a:b"), "hostname", "'a:b'"),
    ],
)
def test_what_cannot_be_said(spec: GuestSpec, subject: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        _LINUX.words(spec)
    assert caught.value.subject == subject
