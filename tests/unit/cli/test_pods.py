"""Names that a shell completes to, rows of `ps`, and keys that leave a console."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from shim.cli.console import escape_key
from shim.cli.pods import names
from shim.cli.ps import age, as_object, rows
from shim.errors import InvalidRequest
from shim.wire import inspection_pb2 as pb


def entry(id: str, namespace: str, name: str, guest: str = "", status: str = "") -> pb.SandboxEntry:
    return pb.SandboxEntry(id=id, pod_namespace=namespace, pod_name=name, state="ready", guest=guest, status=status)


def test_each_is_named_so_that_it_alone_is_meant() -> None:
    every = [
        entry("1", "default", "web", guest="linux", status="running"),
        entry("2", "default", "db"),
        entry("3", "other", "db"),
        entry("4", "default", "job"),
        entry("5", "default", "job"),
        entry("6", "", ""),
    ]
    assert names(every) == [
        ("web", "linux running"),
        *((name, "ready") for name in ("default/db", "other/db", "4", "5", "6")),
    ]


def test_a_row_of_ps() -> None:
    full = pb.SandboxEntry(
        id="0123456789abcdef",
        pod_namespace="default",
        pod_name="web",
        unikernel="c",
        status="running",
        addresses=["10.0.0.2", "fd00::2"],
        state="ready",
        guest="linux",
        monitor="qemu",
        created_at=Timestamp(seconds=1000),
    )
    bare = entry("abc", "", "")
    found = [
        [cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows([full, bare], 1130, whole=False)
    ]
    assert found[0] == ["default/web", "0123456789ab", "running", "linux", "qemu", "10.0.0.2 fd00::2", "2m"]
    assert found[1][:6] == ["-", "abc", "ready", "-", "-", "-"]
    assert next(iter(rows([full], 1130, whole=True)))[1] == "0123456789abcdef"
    assert as_object(bare)["unikernel"] is None and as_object(full)["created_at"] == "1970-01-01T00:16:40.000Z"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172799, "47h"), (172800, "2d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@pytest.mark.parametrize(("text", "key"), [("^]", 29), ("^a", 1), ("^A", 1), ("^@", 0), ("^_", 31), ("~", 126)])
def test_keys_that_leave(text: str, key: int) -> None:
    assert escape_key(text) == key


@pytest.mark.parametrize("text", ["", "^", "^1", "^^^", "ctrl-a", "\u00e9"])
def test_what_is_no_key(text: str) -> None:
    if text == "^":
        assert escape_key(text) == ord("^")
        return
    with pytest.raises(InvalidRequest, match="not a key"):
        escape_key(text)
