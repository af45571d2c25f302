"""The courier's command line, and the answer each containerd understands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from shim.config import Config
from shim.errors import InvalidRequest, Unreachable
from shim.rpc.service import Call
from shim.services.bootstrap import BootstrapService, parse, start_answer
from shim.services.destinations import Destinations
from shim.services.versions import Versions
from shim.services.versions import parse as parse_version
from shim.wire import bootstrap_v1_pb2, courier_pb2


def test_the_flags_containerd_passes() -> None:
    flags = parse(
        [
            "shim",
            "-namespace",
            "k8s.io",
            "-address",
            "/c.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "abc",
            "-debug",
            "start",
        ]
    )
    assert (flags.action, flags.namespace, flags.address, flags.id, flags.debug) == (
        "start",
        "k8s.io",
        "/c.sock",
        "abc",
        True,
    )
    assert parse(["shim", "--id=abc", "-bundle=/b", "delete"]).bundle == "/b"
    assert parse(["shim", "-v"]).version and parse(["shim", "-info"]).info
    assert not parse(["shim", "-debug=false"]).debug


@pytest.mark.parametrize(
    ("argv", "word"),
    [("shim -colour red", "-colour"), ("shim -id", "value"), ("shim start stop", "more than one")],
)
def test_flags_that_make_no_sense(argv: str, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        parse(argv.split())


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.6.20~ds1", (1, 6)), ("v2.1.9", (2, 1)), ("1.7.24~ds1", (1, 7)), ("2.3.0-beta.0", (2, 3)), ("dev", (0, 0))],
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_each_containerd_gets_the_form_it_understands() -> None:
    assert start_answer((1, 6), "unix:///s") == b"unix:///s"
    assert json.loads(start_answer((1, 7), "unix:///s")) == {"version": 2, "address": "unix:///s", "protocol": "ttrpc"}
    assert json.loads(start_answer((2, 1), "unix:///s"))["version"] == 3
    assert json.loads(start_answer((0, 0), "unix:///s"))["version"] == 2


async def test_a_version_is_asked_once_for_each_socket(tmp_path) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []

    async def ask(address: str) -> str:
        asked.append(address)
        if len(asked) > 2:
            raise Unreachable("away")
        return "2.1.9"

    versions = Versions(ask)
    socket = tmp_path / "c.sock"
    socket.touch()
    assert await versions.of(str(socket)) == (2, 1)
    assert await versions.of(f"unix://{socket}") == (2, 1)
    assert await versions.of(str(socket)) == (2, 1)
    assert len(asked) == 2, "once for each way to write the address"
    other = tmp_path / "d.sock"
    other.touch()
    other.rename(socket)  # another socket at the same address: an upgrade
    assert await versions.of(str(socket)) == (0, 0), "asked again, and it does not answer"
    assert await versions.of("/no/such") == (0, 0)
    assert await versions.of("") == (0, 0)


#: What containerd 2.3.4 writes to stdin, by the field numbers of its bootstrap.proto and protobuf's encoding alone.
_PARAMETERS = (
    b"\x0a\x03abc"  # 1, instance_id
    b"\x12\x06k8s.io"  # 2, namespace
    b"\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 3, log_level: DEBUG is -4, ten bytes as every negative enum
    b"\x22\x06v2.3.4"  # 4, containerd_version
    b"\x2a\x0eunix:///t.sock"  # 5, containerd_ttrpc_address
    b"\x32\x0eunix:///g.sock"  # 6, containerd_grpc_address
    b"\x3a\x13/usr/bin/containerd"  # 7, containerd_binary
    b"\x42\x21\x0a\x1f\x0a\x1acontainerd.runc.v1.Options\x12\x01\x0a"  # 8, an extension: the runtime's options
    b"\x4a\x04/run"  # 9, socket_dir
)


async def _start(stdin: bytes, *, said: str = "2.1.9") -> tuple[bytes, str, list[str]]:
    """What `start` prints of the container "abc", where its events go, and which addresses were asked who they are."""
    asked: list[str] = []

    async def ask(address: str) -> str:
        asked.append(address)
        return said

    async def door(namespace: str) -> object:
        raise AssertionError("for 1.6 alone")

    destinations = Destinations()
    nobody: Any = None  # start looks at no sandbox
    known = Versions(ask)
    service = BootstrapService(nobody, destinations, known, Config(), "0", door, Config().run_dir)  # type: ignore[arg-type]
    argv = ["shim", "-namespace", "k8s.io", "-address", "/", "-id", "abc", "start"]
    request = courier_pb2.CourierRequest(argv=argv, environment=["TTRPC_ADDRESS=/old.ttrpc"], cwd="/", stdin=stdin)
    reply = await service.run(request, Call(namespace="", method="Run", transport="ttrpc"))
    assert reply.exit_code == 0, reply.stderr
    return reply.stdout, destinations.of("k8s.io", "abc"), asked


async def test_containerd_2_3_gets_the_message_it_asks_for() -> None:
    printed, events, asked = await _start(_PARAMETERS)
    address = f"unix://{Config().ttrpc_socket}".encode()
    # 1, version 3; 2, the address; 3, the protocol.
    assert printed == b"\x08\x03\x12" + bytes([len(address)]) + address + b"\x1a\x05ttrpc"
    assert events == "unix:///t.sock"
    assert not asked, "it has said its version"


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x08\x01",  # 2.1's: the runtime's options in an Any
        _PARAMETERS.replace(b"abc", b"abd"),  # of another container than the flags
        _PARAMETERS[:-1],  # cut off
        b"\xff" * 40,
    ],
)
async def test_whatever_else_is_on_stdin_is_no_bootstrap_message(stdin: bytes) -> None:
    printed, events, asked = await _start(stdin)
    assert json.loads(printed)["version"] == 3 and asked == ["/"]
    assert events == "/old.ttrpc"


def test_json_cannot_be_taken_for_the_message() -> None:
    """containerd 2.3 tries the message first: what others get must not be readable as one."""
    for address in ("unix:///run/unikernel-shim/shim.ttrpc", f"unix:///{'d' * 90}/shim.ttrpc"):
        for version in ((2, 1), (1, 7)):
            with pytest.raises(DecodeError):
                bootstrap_v1_pb2.BootstrapResult.FromString(start_answer(version, address))
