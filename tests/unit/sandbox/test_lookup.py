"""Which sandbox is meant by a name, and the description of one."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from shim.clock import rfc3339
from shim.errors import InvalidRequest, NotFound
from shim.process.reaper import Exit
from shim.sandbox.description import describe
from shim.sandbox.identifiers import title
from shim.sandbox.lookup import find
from shim.sandbox.node import Node
from shim.sandbox.record import Pod
from shim.sandbox.sandbox import Sandbox

NODE = cast(Node, None)  # neither finding nor describing asks it for anything


def sandbox(id: str, name: str = "", namespace: str = "default", *, ended: bool = False) -> Sandbox:
    made = Sandbox(NODE, "k8s.io", id, Pod(name=name, namespace=namespace if name else "", netns="/run/netns/x"))
    made.exit = Exit(0, 1) if ended else None
    return made


WEB, WEB_ELSEWHERE = sandbox("aaa1", "web"), sandbox("aab2", "web", "other")
OLD, NEW = sandbox("ccc3", "job", ended=True), sandbox("ccd4", "job")
SHORT, LONGER = sandbox("eee"), sandbox("eeee")
ODD = sandbox("fff5", "aaa1")
ALL = (WEB, WEB_ELSEWHERE, OLD, NEW, SHORT, LONGER, ODD)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("aaa1", WEB),  # an id, though another pod has that name
        ("default/web", WEB),
        ("other/web", WEB_ELSEWHERE),
        ("job", NEW),  # the former life has ended
        ("default/job", NEW),
        ("ccc3", OLD),  # unless it is named itself
        ("ccc", OLD),
        ("aab", WEB_ELSEWHERE),
        ("eee", SHORT),  # whole, before the beginning of another
        ("eeee", LONGER),
        ("cc", NEW),
    ],
)
def test_the_one_that_is_meant(wanted: str, meant: Sandbox) -> None:
    assert find(ALL, wanted) is meant


@pytest.mark.parametrize("wanted", ["nobody", "default/nobody", "third/web", "/", "/web"])
def test_none_is_meant(wanted: str) -> None:
    with pytest.raises(NotFound, match=re.escape(wanted)):
        find(ALL, wanted)


def test_several_are_meant() -> None:
    with pytest.raises(InvalidRequest, match=r"2 pods are meant: default/web \(aaa1\), other/web \(aab2\).*by its id"):
        find(ALL, "web")
    with pytest.raises(InvalidRequest, match="no pod is named"):
        find(ALL, "")


def test_a_container_means_its_pod() -> None:
    web, db = sandbox("aaa1", "web"), sandbox("bbb2", "db")
    web.containers = cast(Any, {"c0ffee1": None})
    db.containers = cast(Any, {"c0ffee22": None, "aaa": None})
    assert find((web, db), "c0ffee1") is web and find((web, db), "c0ffee2") is db
    assert find((web, db), "aaa") is web  # a pod's id comes first
    with pytest.raises(InvalidRequest, match=r"2 pods are meant: default/web \(aaa1\), default/db \(bbb2\)"):
        find((web, db), "c0f")


def test_titles() -> None:
    assert title("0123456789abcdef", "default", "web") == "default/web (0123456789ab)"
    assert title("0123456789abcdef", "", "") == "0123456789ab"


def test_a_description_without_a_unikernel() -> None:
    found: dict[str, Any] = describe(WEB)
    assert found["pod"] == {"namespace": "default", "name": "web"} and found["unikernel"] is None
    assert found["sandboxer"] == "unikernel" and found["netns"] == "/run/netns/x"
    assert found["containers"] == [] and found["stopped_at"] is None and found["created_at"].endswith("Z")


def test_times() -> None:
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123Z"
    assert rfc3339(0) is None
