"""The courier without a daemon: what it sends, what it understands, what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shim import courier
from shim.wire import courier_pb2, rpc_status_pb2, ttrpc_pb2


def test_the_request_is_what_the_contract_says() -> None:
    frame = courier.request([b"shim", b"-id", b"x" * 300], {b"A": b"1=2"}, b"/bundle", b"\x00\xff")
    length, stream = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:8], "big")
    assert (length, stream, frame[8], frame[9]) == (len(frame) - 10, 1, 1, 0)
    outer = ttrpc_pb2.Request.FromString(frame[10:])
    assert (outer.service, outer.method) == ("io.unikernel.shim.v1.Bootstrap", "Run")
    inner = courier_pb2.CourierRequest.FromString(outer.payload)
    assert list(inner.argv) == ["shim", "-id", "x" * 300]
    assert list(inner.environment) == ["A=1=2"]
    assert (inner.cwd, inner.stdin) == ("/bundle", b"\x00\xff")


def test_the_reply_is_read() -> None:
    inner = courier_pb2.CourierReply(exit_code=3, stdout=b"o" * 1000, stderr=b"e")
    outer = ttrpc_pb2.Response(payload=inner.SerializeToString())
    assert courier.reply(outer.SerializeToString()) == (3, b"o" * 1000, b"e")
    assert courier.reply(ttrpc_pb2.Response().SerializeToString()) == (0, b"", b"")


def test_a_refusal_is_a_failure_with_its_words() -> None:
    outer = ttrpc_pb2.Response(status=rpc_status_pb2.Status(code=12, message="unknown service"))
    with pytest.raises(courier.Failure, match="unknown service"):
        courier.reply(outer.SerializeToString())


def test_it_imports_next_to_nothing() -> None:
    script = "import sys; import courier; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, 'shim'); {script}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(courier.__file__).parent.parent,
    )
    heavy = {"socket", "asyncio", "json", "re", "typing", "pathlib", "subprocess", "struct", "logging", "enum", "shim"}
    assert not heavy & set(done.stdout.split())


def test_without_a_daemon_the_failure_is_told(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'run_dir = "{tmp_path}/run"\n')
    done = subprocess.run(
        [sys.executable, "-I", "-S", courier.__file__, "-namespace", "n", "-id", "i", "start"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"UNIKERNEL_SHIM_CONFIG": str(config), "UNIKERNEL_SHIM_DAEMON": "/no/such/daemon"},
    )
    assert done.returncode == 1
    assert "/no/such/daemon" in done.stderr
    assert not done.stdout
