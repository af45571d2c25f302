"""The courier without a daemon: what it sends, what it understands, what it imports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ("/run/unikernel-shim", False)),
        ('# run_dir = "/x"\n  # grouping = "pod"\n[log]\nlevel = "info"\n', ("/run/unikernel-shim", False)),
        ('run_dir = "/x"\n', ("/x", False)),
        ('grouping = "pod"\n', ("/run/unikernel-shim", True)),
        ('grouping = "node"\nrun_dir = "/x"\n', ("/x", False)),
        ("grouping = 'pod' # of one's own\n", ("/run/unikernel-shim", True)),
        # What is wrong with it, the daemon says.
        ('grouping = "pods"\n', ("/run/unikernel-shim", False)),
        ('[log]\ngrouping = "pod"\n', ("/run/unikernel-shim", False)),
    ],
)
def test_what_it_reads_of_the_configuration(tmp_path: Path, text: str, found: tuple[str, bool]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert courier.settings(str(file)) == found


def test_a_configuration_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    assert courier.settings(str(tmp_path / "none")) == ("/run/unikernel-shim", False)
    (tmp_path / "broken").write_bytes(b"grouping = \xff")
    with pytest.raises(courier.Failure, match="broken"):
        courier.settings(str(tmp_path / "broken"))


_LINES = (
    'run_dir = "/a"',
    "run_dir='/b' # why",
    'run_dir = "/\\u00e9"',
    'run_dir="/c" x',
    "run_dir = 7",
    '"run_dir" = "/d"',
    "\trun_dir\t=\t'/é'",
    'run_dir.x = "/e"',
    'grouping = "pod"',
    "grouping = 'node'#",
    'grouping = "pod" "',
    "stop_grace = 5.0 # grouping",
    "# grouping",
    "",
    "[log]",
    "[[a]]",
    'level = "run_dir"',
    'x = """',
    '"""',
)


@given(st.lists(st.sampled_from(_LINES), max_size=6))
def test_what_is_read_without_a_parser_is_what_a_parser_reads(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = courier._plain_settings(text.encode())
    try:
        parsed = {key: value for key, value in tomllib.loads(text).items() if key in ("run_dir", "grouping")}
    except tomllib.TOMLDecodeError:
        return  # the daemon says what is wrong with it
    assert found is None or found == parsed


@pytest.mark.parametrize(
    "text",
    [
        '# run_dir = "/run/unikernel-shim"\n# grouping = "node"\n[log]\nlevel = "debug"\n',
        'run_dir = "/run/elsewhere" # a tmpfs\ngrouping = "pod"\n[log]\n',
    ],
)
def test_an_ordinary_configuration_costs_no_parser(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    script = (
        f"import sys; sys.path.insert(0, 'shim'); import courier; courier.settings({str(file)!r}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(courier.__file__).parent.parent,
    )
    assert not {"tomllib", "json", "re"} & set(done.stdout.split())


def configuration(**annotations: object) -> bytes:
    return json.dumps({"ociVersion": "1.1.0", "annotations": annotations}).encode()


@pytest.mark.parametrize(
    ("config", "sandbox"),
    [
        (configuration(**{courier._SANDBOX: "s1"}), "s1"),
        (configuration(**{courier._SANDBOX: "s" * 76}), "s" * 76),
        (b'{"annotations": {"io.kubernetes.cri.sandbox\\u002did": "\\u0073\\u0031"}}', "s1"),
        (configuration(), ""),
        (configuration(other='"io.kubernetes.cri.sandbox-id": "s1"'), ""),
        (b'{"linux": {"io.kubernetes.cri.sandbox-id": "s1"}}', ""),
        (b'{"hooks": {"annotations": {"io.kubernetes.cri.sandbox-id": "s1"}}}', ""),
        # None of these is a sandbox's id: what is wrong with the bundle, the daemon says.
        (configuration(**{courier._SANDBOX: ""}), ""),
        (configuration(**{courier._SANDBOX: "../../etc"}), ""),
        (configuration(**{courier._SANDBOX: "a/b"}), ""),
        (configuration(**{courier._SANDBOX: "a\0b"}), ""),
        (configuration(**{courier._SANDBOX: "a..b"}), ""),
        (configuration(**{courier._SANDBOX: "-a"}), ""),
        (configuration(**{courier._SANDBOX: "ä"}), ""),
        (configuration(**{courier._SANDBOX: "s" * 77}), ""),
        (configuration(**{courier._SANDBOX: 7}), ""),
        (configuration(**{courier._SANDBOX: ["s1"]}), ""),
        (b'{"annotations": null}', ""),
        (b'{"annotations": ["io.kubernetes.cri.sandbox-id"]}', ""),
        (b"[]", ""),
        (b"", ""),
        (b"\xff\xfe", ""),
        (b'{"annotations": {"io.kubernetes.cri.sandbox-id": "s1"', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_sandbox_that_a_configuration_names(config: bytes, sandbox: str) -> None:
    assert courier.sandbox_in(config) == sandbox


@pytest.mark.parametrize(
    ("line", "pod"),
    [
        ("-namespace n -id c start", "n/s1"),
        ("-id=c --namespace=n start", "n/s1"),
        ("-id c start", "env/s1"),
        ("-namespace n -id c -bundle elsewhere delete", "n/c"),
        ("-namespace n -id c -bundle=none delete", "n/c"),
        ("-info", "/"),
        ("-v", "/"),
        ("start -id", "/"),
        ("-id ../../etc start", "/"),
        ("-namespace a/b -id c start", "/"),
        ("-id a..b start", "/"),
    ],
)
def test_the_pod_of_a_command_line(tmp_path: Path, line: str, pod: str) -> None:
    (tmp_path / "config.json").write_bytes(configuration(**{courier._SANDBOX: "s1"}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_bytes(configuration())
    words = [str(tmp_path / word) if word == "elsewhere" else word for word in line.split()]
    assert courier.pod_of(words, "env", str(tmp_path), str(tmp_path)) == pod


def test_without_a_bundle_the_journals_are_asked(tmp_path: Path) -> None:
    directory = Path(courier.pod_directory(str(tmp_path), "n/s1"))
    (directory / "journal").mkdir(parents=True)
    (directory / "journal" / "n@c.json").touch()

    def pod(namespace: str) -> str:
        return courier.pod_of(["-namespace", namespace, "-id", "c", "delete"], "", "/none", str(tmp_path))

    assert pod("n") == "n/c", "a directory that does not say which pod it is"
    (directory / "pod").write_text("n/s1\n")
    assert (pod("n"), pod("other")) == ("n/s1", "other/c")


def test_each_pod_has_a_directory_that_leaves_room_for_sockets() -> None:
    directories = {courier.pod_directory("/run/unikernel-shim", f"k8s.io/{'a' * 60}{number}") for number in range(1000)}
    assert len(directories) == 1000
    assert {len(directory) for directory in directories} == {len("/run/unikernel-shim/pods/") + 16}


def test_the_last_words_of_a_daemon_that_could_not_start(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("unikernel-shim: of yesterday\n")
    already = log.stat().st_size
    assert courier._last_line(str(log), already) == "no word of it"
    with log.open("a") as file:
        file.write('unikernel-shim: it is wrong\n{"event": "of another pod"}\n')
    assert courier._last_line(str(log), already) == "unikernel-shim: it is wrong"
    assert courier._last_line(str(tmp_path / "none"), 0) == "no word of it"


def test_a_large_log_makes_way_and_a_small_one_stays(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    assert courier._log_size(str(log)) == 0
    log.write_text("word\n")
    assert courier._log_size(str(log)) == 5
    with log.open("ab") as file:
        file.truncate(courier._LOG_LIMIT + 1)
    assert courier._log_size(str(log)) == 0
    assert not log.exists() and log.with_name("daemon.log.1").stat().st_size == courier._LOG_LIMIT + 1


class Door:
    """A daemon's socket that closes so many connections without an answer before it gives one."""

    def __init__(self, path: Path, closes: int) -> None:
        self.closes = closes
        self.asked = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(os.fspath(path))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        answer = ttrpc_pb2.Response(payload=courier_pb2.CourierReply(stdout=b"done").SerializeToString())
        payload = answer.SerializeToString()
        while True:
            connection, _ = self._listening.accept()
            with connection:
                connection.recv(1 << 16)
                self.asked += 1
                if self.asked > self.closes:
                    connection.sendall(len(payload).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\2\0" + payload)


@pytest.mark.parametrize(("closes", "code"), [(0, 0), (2, 0), (4, 0), (9, 1)])
def test_a_daemon_that_closes_the_connection_is_asked_again(closes: int, code: int) -> None:
    with tempfile.TemporaryDirectory(prefix="uks") as directory:
        config = Path(directory) / "config.toml"
        config.write_text(f'run_dir = "{directory}"\n')
        door = Door(Path(directory) / "shim.ttrpc", closes)
        done = subprocess.run(
            [sys.executable, "-I", "-S", courier.__file__, "-namespace", "n", "-id", "i", "start"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={"UNIKERNEL_SHIM_CONFIG": str(config), "UNIKERNEL_SHIM_DAEMON": "/no/such/daemon"},
            timeout=20,
        )
        assert (done.returncode, done.stdout) == (code, b"" if code else b"done")
        assert door.asked == min(closes + 1, 5)
        assert b"closed the connection" in done.stderr if code else not done.stderr
