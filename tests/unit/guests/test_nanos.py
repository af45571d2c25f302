"""A Nanos guest's command line: golden ones, and that Nanos reads back what was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import InvalidRequest
from shim.guests.base import Dns, GuestSpec, Volume
from shim.guests.registry import guests
from tests.unit.guests import golden
from tests.unit.guests.interfaces import ETH0, NAMES, NET1, NET1_OUT, NET1_ROUTED, NO_ADDRESS, TEXT

_NANOS = guests()["nanos"]


def settings_read(line: str) -> dict[str, Any]:
    """The tree of settings: written from cmdline_apply()'s behaviour."""
    tree: dict[str, Any] = {}
    for word in filter(None, line.split(" ")):
        name, equals, value = word.partition("=")
        if not equals or not value:
            continue
        *path, last = name.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return tree


_CASES = {
    "nothing": GuestSpec(),
    "network": GuestSpec(interfaces=(ETH0,), hostname="web-0", dns=Dns(servers=("10.96.0.10",))),
    "two-nics": GuestSpec(interfaces=(ETH0, NET1)),
    "gateway-second": GuestSpec(interfaces=(NET1, ETH0)),
    "two-gateways": GuestSpec(interfaces=(ETH0, NET1_OUT)),
    "no-address": GuestSpec(interfaces=(NO_ADDRESS,)),
    "arguments": GuestSpec(arguments=("/bin/web", "-p", "80.8", 'a="b"', "{à}", "it's;$HOME")),
    "environment": GuestSpec(environment={"PATH": "/bin", "URL": "http://a.b/?c=d.e", "JSON": '{"a":[1]}'}),
    "cmdline": GuestSpec(cmdline="  log_level=info   http.dump=t ", arguments=("/bin/web",)),
    "volumes": GuestSpec(
        volumes=(
            Volume(target="/", format="", disk=0),
            Volume(target="/data.d", format="tfs", disk=1, device="data"),
            Volume(target="/cache", format="", disk=2, device="cache", read_only=False),
            Volume(target="", format="", disk=3),
            Volume(target="/shared", format="9p", device="0"),
        )
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_golden(case: str) -> None:
    golden.check(_NANOS, case, _CASES[case])


def test_golden_files() -> None:
    golden.check_files(_NANOS, _CASES)


_WORDS = TEXT.map(lambda text: text.replace(" ", "_")).filter(bool)


@given(arguments=st.lists(_WORDS, max_size=8), environment=st.dictionaries(NAMES, _WORDS, max_size=8))
def test_what_goes_in_comes_out(arguments: list[str], environment: dict[str, str]) -> None:
    own = ("/bin/web", *arguments)
    found = settings_read(" ".join(_NANOS.words(GuestSpec(arguments=own, environment=environment))))
    assert found.pop("program") == "/bin/web"
    assert found.pop("arguments") == {str(number): argument for number, argument in enumerate(own)}
    assert found.pop("environment", {}) == environment
    assert not found


@pytest.mark.parametrize(
    ("spec", "subject", "why"),
    [
        (GuestSpec(arguments=("-p", "80")), "args", "'-p' is no absolute path"),
        (GuestSpec(arguments=("/web", "a b")), "args", "told 'a b'"),
        (GuestSpec(arguments=("/web", "")), "args", "told ''"),
        (GuestSpec(arguments=("/web", "a\0b")), "args", "no space"),
        (GuestSpec(environment={"A": "b c"}), "env A", "told 'b c'"),
        (GuestSpec(environment={"A": ""}), "env A", "told ''"),
        (GuestSpec(environment={"a.b": "1"}), "env a.b", "this name"),
        (GuestSpec(environment={"": "1"}), "env ", "this name"),
        (GuestSpec(interfaces=(ETH0, NET1_ROUTED)), "net1", "one gateway only"),
        (GuestSpec(volumes=(Volume(target="/", format="ext4", disk=0),)), "/", "mount ext4 there"),
        (GuestSpec(volumes=(Volume(target="/", format="9p", device="0"),)), "/", "mount 9p there"),
        (GuestSpec(volumes=(Volume(target="/d", format="ext4", disk=1),)), "/d", "mount ext4"),
        (GuestSpec(volumes=(Volume(target="/d", format="9p", device="data"),)), "/d", "by a number, not by 'data'"),
        (GuestSpec(volumes=(Volume(target="/d", format="tfs", disk=1),)), "/d", "'' can be none"),
        (GuestSpec(volumes=(Volume(target="/d", format="tfs", disk=1, device="a.b"),)), "/d", "'a.b' can be none"),
        (GuestSpec(volumes=(Volume(target="/a b", format="tfs", disk=1, device="a"),)), "/a b", "'/a b'"),
        (GuestSpec(volumes=(Volume(target="/a:ro", format="tfs", disk=1, device="a"),)), "/a:ro", "'/a:ro'"),
    ],
)
def test_what_cannot_be_said(spec: GuestSpec, subject: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        _NANOS.words(spec)
    assert caught.value.subject == subject
