"""A Unikraft guest's command line: golden ones for its ages, and that it reads back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import Dns, GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.dual_stack import DNS, DUAL
from tests.unit.guests.interfaces import ETH0, NAMES, NET1, NET1_ROUTED, NO_ADDRESS, TEXT

_UNIKRAFT = guests()["unikraft"]
_INITRD = Volume(target="/", format="cpio")
_SHARED = Volume(target="/", format="9p", device="fs0", read_only=False)
_CONFIG = Volume(target="/etc/app", format="9p", device="fs1")


def _full(version: str, volumes: tuple[Volume, ...], environment: dict[str, str]) -> GuestSpec:
    return GuestSpec(
        program="nginx",
        arguments=("-c", "/nginx/conf/nginx.conf"),
        environment=environment,
        hostname="web-0",
        interfaces=(ETH0,),
        dns=DNS,
        volumes=volumes,
        version=version,
    )


_ENVIRONMENT = {"PATH": "/bin", "GREETING": "hello, world"}

CASES = {
    "nothing": GuestSpec(),
    "newest": _full("", (_INITRD,), _ENVIRONMENT),
    "0.17": _full("0.17.0", (_SHARED, _CONFIG), _ENVIRONMENT),
    "0.16.1": _full("RELEASE-0.16.1", (_INITRD,), _ENVIRONMENT),
    "0.16.0": _full("v0.16.0", (_SHARED, _CONFIG), _ENVIRONMENT),
    "0.15": _full("0.15", (_INITRD,), _ENVIRONMENT),
    "0.14": _full("0.14.0", (_SHARED, _CONFIG), _ENVIRONMENT),
    "0.13": _full("0.13.1", (_INITRD,), _ENVIRONMENT),
    "0.12": _full("0.12.0", (_SHARED,), {}),
    "stable": _full("stable", (), {}),
    "routed": GuestSpec(interfaces=(NET1_ROUTED,)),
    "no-gateway": GuestSpec(interfaces=(NET1,), dns=Dns(servers=("1.1.1.1",))),
    "two": GuestSpec(interfaces=(ETH0, NET1), hostname="h"),
    "two-old": GuestSpec(interfaces=(ETH0, NET1), version="0.15.0"),
    "no-address-first": GuestSpec(interfaces=(NO_ADDRESS, DUAL), dns=Dns(searches=("a.b",))),
    "no-address-last": GuestSpec(interfaces=(ETH0, NO_ADDRESS)),
    "cmdline": GuestSpec(cmdline="a.b='c d' vfs.x=1", arguments=("x",)),
    "cmdline-stop": GuestSpec(cmdline="-- 'one' two", arguments=("three",)),
    "stop-in-arguments": GuestSpec(arguments=("a", "--", "b")),
    "device": GuestSpec(volumes=(Volume(target="", format="", disk=0),)),
    "quoting": GuestSpec(
        arguments=("a b", '{"a": [1, "b c"]}', "c:\\dir", "it's", "é ü", "]"),
        environment={"JSON": '{"a": "it\'s"}', "EMPTY": "", "LIST": "[ a ]", "PATTERN": r"\d", "NAME": "Zoë"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    golden.check(_UNIKRAFT, case, CASES[case])


def test_golden_files() -> None:
    golden.check_files(_UNIKRAFT, CASES)


def argnparse(text: str, *, backslash: bool) -> list[str]:
    """The words that uk_argnparse() makes of a command line, with and without the backslash of 0.13."""
    found: list[str] = []
    inside, quote, escaped = False, "", False
    for character in text:
        if character in " \r\n\t\v" and not quote and not escaped:
            inside = False
            continue
        if character in "'\"":
            if escaped and quote and character == '"':
                found[-1] = found[-1][:-1]
                escaped = False
            elif not escaped and quote in ("", character):
                quote = "" if quote else character
                continue
        if not inside:
            found.append("")
            inside, escaped = True, False
        if backslash and character == "\\" and quote != "'":
            if escaped:
                escaped = False
                continue
            escaped = True
        elif escaped:
            if not quote:
                found[-1] = found[-1][:-1]
            escaped = False
        found[-1] += character
    return found


def boot(spec: GuestSpec, *, before: str = "", backslash: bool = True) -> tuple[dict[str, list[str]], list[str]]:
    """What the parameters are set to, and the application's argv, as lib/ukboot and lib/uklibparam have it."""
    argv = argnparse(before + " ".join(_UNIKRAFT.words(spec)), backslash=backslash)
    stop = argv.index("--", 1) if "--" in argv[1:] else 0
    if stop < 2:
        return {}, argv
    parameters: dict[str, list[str]] = {}
    for word in argv[1:stop]:
        name, equals, value = word.partition("=")
        assert not value.startswith("[")
        if "." in name:
            assert equals
            parameters.setdefault(name, []).append(value)
    return parameters, [argv[0], *argv[stop + 1 :]]


_SPECIAL = st.text(st.sampled_from(list("a \t\n\v\"\\'{}[]:=-é$`;\x7f")), max_size=12)


@given(
    st.lists((TEXT | _SPECIAL | st.just("--")).filter(bool), max_size=6),
    st.dictionaries(NAMES, TEXT | _SPECIAL, max_size=5),
    st.sampled_from(["", "/kernel "]),
    st.sampled_from(["", "0.12.0", "0.16.0", "0.17.0"]),
)
def test_what_goes_in_comes_out(arguments: list[str], environment: dict[str, str], before: str, version: str) -> None:
    spec = GuestSpec(arguments=tuple(arguments), environment=environment, version=version)
    parameters, argv = boot(spec, before=before, backslash=version != "0.12.0")
    assert argv == [before.strip() or "unikraft", *arguments]
    told = [f"{name}={value}" for name, value in environment.items()] if version != "0.12.0" else []
    assert parameters.get("env.vars", []) == told


def test_the_network_comes_out() -> None:
    parameters, argv = boot(CASES["newest"])
    assert parameters["netdev.ip"] == ["10.1.2.3/29:10.1.2.1:10.96.0.10:1.1.1.1:web-0:default.svc.cluster.local"]
    assert parameters["vfs.fstab"] == ["initrd0:/:extract::ramfs=2"]
    assert argv == ["nginx", "-c", "/nginx/conf/nginx.conf"]
    old, _ = boot(CASES["two-old"])
    assert old["netdev.ipv4_addr"] == ["10.1.2.3 192.168.7.9"]
    assert old["netdev.ipv4_gw_addr"] == ["10.1.2.1 0.0.0.0"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (GuestSpec(arguments=("a", "")), r"args: .* empty word or NUL \(''\)"),
        (GuestSpec(environment={"A": "\0"}), "env.vars: .* NUL"),
        (GuestSpec(environment={"[A": "b"}), r"env \[A"),
        (GuestSpec(environment={"A=B": "c"}), "env A=B"),
        (GuestSpec(hostname="a:b", interfaces=(ETH0,)), "hostname: 'a:b'"),
        (GuestSpec(dns=Dns(searches=("a b",)), interfaces=(ETH0,)), "dns: 'a b'"),
        (GuestSpec(cmdline="a.b='c"), "io.unikernel.cmdline: a quote is not closed"),
        (GuestSpec(interfaces=(ETH0, NO_ADDRESS), version="0.16.0"), "eth0: before 0.16.1 .* io.unikernel.nics"),
        (GuestSpec(volumes=(Volume(target="/", format="ext4", disk=0),)), "cpio .* or 9p, not ext4"),
        (GuestSpec(volumes=(Volume(target="/data", format="cpio"),)), "/data: .* root"),
        (GuestSpec(volumes=(Volume(target="/a:b", format="9p", device="d"),)), "colon"),
        (GuestSpec(volumes=(_SHARED, _CONFIG), version="0.13.0"), "/etc/app: before 0.14"),
        (GuestSpec(arguments=("x",) * 60), "63 words are more than the 59 .* enableServiceLinks"),
    ],
)
def test_what_cannot_be_said_is_refused(spec: GuestSpec, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        _UNIKRAFT.words(spec)
