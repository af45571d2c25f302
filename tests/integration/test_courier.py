"""The courier as containerd runs it, and the daemon it starts: one of them, whatever the number of couriers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from shim.wire import bootstrap_v1_pb2, services_version_v1_pb2, task_v2_pb2, types_pb2
from tests.integration import paths
from tests.integration.couriers import Place, a_place
from tests.integration.daemon import environment, place
from tests.integration.process import answers

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", autouse=True)
def _placed() -> None:
    place()


@pytest.fixture
def fresh() -> Iterator[Place]:
    """No daemon runs yet."""
    with a_place() as made:
        yield made


@pytest.fixture(scope="module")
def served() -> Iterator[Place]:
    """The first courier of the module starts the daemon."""
    with a_place() as made:
        yield made


def test_twenty_at_once_start_one_daemon(fresh: Place) -> None:
    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(lambda number: fresh.courier("-id", f"c{number}", "start"), range(20)))
    assert {run.returncode for run in runs} == {0}, runs
    assert {run.stdout for run in runs} == {runs[0].stdout}
    assert fresh.daemons() == {fresh.daemon()}


def test_version_and_info(served: Place) -> None:
    shown = served.courier("-v")
    assert shown.returncode == 0 and shown.stdout.startswith(b"containerd-shim-unikernel-v2:\n  Version:  ")
    for stdin in (None, b"", types_pb2.RuntimeInfo().SerializeToString(), b"\x0a\x03abc"):
        told = served.courier("-info", stdin=stdin)
        assert told.returncode == 0, told.stderr
        assert types_pb2.RuntimeInfo.FromString(told.stdout).name == "io.containerd.unikernel.v2"


@contextlib.contextmanager
def a_containerd(path: Path, version: str) -> Iterator[None]:
    """Something that answers containerd's Version service."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return services_version_v1_pb2.VersionResponse(version=version, revision="r").SerializeToString()

    server = grpc.server(ThreadPoolExecutor(2))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("containerd.services.version.v1.Version", {"Version": handler}),)
    )
    server.add_insecure_port(f"unix:{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("version", "form"),
    [("1.6.20~ds1", 0), ("v1.6.36", 0), ("1.7.24", 2), ("v2.0.0", 3), ("2.1.9", 3), ("v2.3.0-rc.1", 3), ("oddity", 2)],
)
def test_the_answer_is_in_the_form_that_containerd_reads(served: Place, version: str, form: int) -> None:
    path = served.base / f"c{abs(hash(version)) % 10**6}.sock"
    left = served.bundle / "address"
    left.unlink(missing_ok=True)
    (served.bundle / "config.json").write_text("{}")
    with a_containerd(path, version):
        run = served.courier("-id", "c", "-address", str(path), "start")
    assert run.returncode == 0, run.stderr
    # 1.x finds the shim again by it.
    assert (left.read_bytes() == run.stdout) if form < 3 else not left.exists()
    address = f"unix://{served.socket}"
    if form:
        assert json.loads(run.stdout) == {"version": form, "address": address, "protocol": "ttrpc"}
    else:
        # 1.6 does not say its namespace in its calls, so the address may be a door of the namespace's own.
        assert run.stdout.startswith(f"unix://{served.run_dir}/".encode())
        assert answers(Path(run.stdout.decode().removeprefix("unix://")))


def test_a_containerd_that_cannot_be_asked(served: Place) -> None:
    run = served.courier("-id", "c", "-address", str(served.base / "none.sock"), "start")
    assert run.returncode == 0 and json.loads(run.stdout)["version"] == 2


def test_a_containerd_that_accepts_and_says_nothing(served: Place) -> None:
    path = served.base / "mute.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(os.fspath(path))
        mute.listen()
        started = time.monotonic()
        run = served.courier("-id", "c", "-address", str(path), "start")
    assert run.returncode == 0 and json.loads(run.stdout)["version"] == 2
    assert time.monotonic() - started < 10


def test_the_bootstrap_message_says_all_that_start_needs(served: Place) -> None:
    """Nobody listens at the address: the version need not be asked for. The answer has the message's form."""
    address = f"unix://{served.base / 'b.sock'}"
    message = bootstrap_v1_pb2.BootstrapParams(
        instance_id="c",
        namespace="test",
        containerd_version="2.3.4",
        containerd_grpc_address=address,
        containerd_ttrpc_address=f"{address}.ttrpc",
    )
    run = served.courier("-id", "c", "start", stdin=message.SerializeToString())
    assert run.returncode == 0, run.stderr
    result = bootstrap_v1_pb2.BootstrapResult.FromString(run.stdout)
    assert (result.version, result.protocol) == (3, "ttrpc")
    assert result.address == f"unix://{served.socket}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-id", "c", "-frobnicate", "start"), "-frobnicate: unknown flag"),
        (("start",), "container id"),
        (("-id", "../../etc", "start"), "../../etc"),
        (("-id", "a/b", "delete"), "a/b"),
        (("-namespace", "a/b", "-id", "c", "start"), "a/b"),
        (("-id", "c", "dance"), "unknown action"),
        (("-id", "c"), "unknown action"),
        (("-id", "c", "start", "delete"), "more than one action"),
        (("start", "-id"), "needs a value"),
        (("-id", "c" * 5000, "start"), "container id"),
    ],
)
def test_a_wrong_command_line_is_refused_with_words(served: Place, arguments: tuple[str, ...], words: str) -> None:
    run = served.courier(*arguments)
    text = run.stderr.decode()
    assert (run.returncode, run.stdout) == (1, b""), text
    assert text.startswith("unikernel-shim: ") and text.count("\n") == 1 and "Traceback" not in text
    assert all(word in text for word in words.split(": ")), text


def test_an_id_that_is_no_text(served: Place) -> None:
    command = [os.fsencode(paths.COURIER), b"-id", b"\xff\xfe", b"start"]
    env = {**os.environ, **environment(served.config), "NAMESPACE": "test"}
    run = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
    assert run.returncode == 1 and run.stderr and b"Traceback" not in run.stderr


def test_delete_of_an_unknown_container(served: Place) -> None:
    run = served.courier("-id", "unknown", "-bundle", str(served.bundle), "delete")
    assert run.returncode == 0, run.stderr
    answer = task_v2_pb2.DeleteResponse.FromString(run.stdout)
    assert answer.exit_status == 137 and answer.exited_at.seconds > 0


def test_delete_with_no_daemon_starts_one_and_unmounts(fresh: Place) -> None:
    rootfs = fresh.bundle / "rootfs"
    rootfs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(rootfs)], check=True)
    run = fresh.courier("-id", "c", "-bundle", str(fresh.bundle), "delete")
    assert run.returncode == 0, run.stderr
    assert task_v2_pb2.DeleteResponse.FromString(run.stdout).exit_status == 137
    assert not rootfs.is_mount()
    assert fresh.daemon()


def test_a_daemon_that_cannot_start_is_quoted() -> None:
    with a_place("frobnicate = 1\n") as place:
        run = place.courier("-id", "c", "start")
        text = run.stderr.decode()
        assert run.returncode == 1 and run.stdout == b""
        assert "frobnicate" in text and str(place.run_dir / "daemon.log") in text
        # The next attempt quotes its own daemon, in the same words.
        assert place.courier("-id", "c", "start").stderr == run.stderr


def test_a_run_directory_that_cannot_be_made() -> None:
    with a_place() as place:
        place.run_dir.write_text("in the way")
        run = place.courier("-id", "c", "start")
        assert run.returncode == 1 and os.fsencode(place.run_dir) in run.stderr and b"Traceback" not in run.stderr


def test_a_configuration_that_is_no_toml() -> None:
    with a_place("= =\n") as place:
        run = place.courier("-id", "c", "start")
        assert run.returncode == 1 and b"Traceback" not in run.stderr and os.fsencode(place.config) in run.stderr


def test_a_daemon_that_was_killed_leaves_no_obstacle(fresh: Place) -> None:
    assert fresh.courier("-id", "c", "start").returncode == 0
    first = fresh.daemon()
    os.kill(first, signal.SIGKILL)
    while first in fresh.daemons():
        time.sleep(0.01)
    assert fresh.courier("-id", "c", "start").returncode == 0
    assert fresh.daemon() not in (0, first)


def test_couriers_while_the_daemon_is_told_to_stop(fresh: Place) -> None:
    """One that comes too late for the old daemon starts the next."""
    assert fresh.courier("-id", "c", "start").returncode == 0
    runs: list[subprocess.CompletedProcess[bytes]] = []
    threads = [threading.Thread(target=lambda: runs.append(fresh.courier("-id", "c", "start"))) for _ in range(8)]
    os.kill(fresh.daemon(), signal.SIGTERM)
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert {run.returncode for run in runs} == {0}, runs
