"""Of several daemons, the one that knows the pod answers the command line."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

from shim.cli.client import ask, ask_all, locate
from shim.cli.main import main
from shim.config import Config
from shim.errors import (
    Bug,
    InvalidRequest,
    NetworkFault,
    NodeFault,
    NotFound,
    ShimError,
    TimedOut,
    Unreachable,
    WrongState,
)
from shim.rpc.grpc_server import GrpcServer
from shim.rpc.service import Call, Method, Service
from shim.wire import inspection_pb2 as pb
from tests.unit.cli.users import another_user

Serve = Callable[[str, str], None]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="uks") as directory:
        yield Path(directory)


@pytest.fixture
def serve(run_dir: Path) -> Iterator[Serve]:
    """Have a daemon at a path below the run directory that knows one pod."""
    with ExitStack() as stack:

        def start(path: str, knows: str) -> None:
            def inspect(request: bytes, context: grpc.ServicerContext) -> bytes:
                if pb.InspectRequest.FromString(request).pod != knows:
                    context.abort(grpc.StatusCode.NOT_FOUND, "there is no such pod")
                return pb.InspectResponse(json=path).SerializeToString()

            def listed(request: bytes, context: grpc.ServicerContext) -> bytes:
                entries = [pb.SandboxEntry(id=f"{len(path)}ab", pod_namespace="default", pod_name=knows)]
                return pb.ListResponse(sandboxes=entries).SerializeToString()

            handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
                "Inspect": grpc.unary_unary_rpc_method_handler(inspect),
                "List": grpc.unary_unary_rpc_method_handler(listed),
            }
            server = grpc.server(ThreadPoolExecutor(1))
            name = pb.DESCRIPTOR.services_by_name["Inspection"].full_name
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            (run_dir / path).parent.mkdir(parents=True, exist_ok=True)
            server.add_insecure_port(f"unix:{run_dir / path}")
            server.start()
            stack.callback(lambda: server.stop(0).wait())

        yield start


def inspect(run_dir: Path, pod: str) -> str:
    return ask(Config(run_dir=run_dir), "Inspect", pb.InspectRequest(pod=pod), pb.InspectResponse).json


def test_the_daemon_that_knows_the_pod_answers(run_dir: Path, serve: Serve) -> None:
    serve("shim.sock", "plugin")
    serve("pods/1/shim.sock", "first")
    serve("pods/2/shim.sock", "second")
    (run_dir / "pods" / "0").mkdir()
    (run_dir / "pods" / "0" / "shim.sock").touch()  # of one that was killed
    assert inspect(run_dir, "plugin") == "shim.sock"
    assert inspect(run_dir, "second") == "pods/2/shim.sock"
    with pytest.raises(NotFound, match="no such pod"):
        inspect(run_dir, "third")


def test_two_that_know_a_pod_of_that_name(run_dir: Path, serve: Serve) -> None:
    serve("pods/1/shim.sock", "web")
    serve("pods/22/shim.sock", "web")
    with pytest.raises(InvalidRequest, match=r"2 pods are meant.*: default/web \(16ab\), default/web \(17ab\)"):
        inspect(run_dir, "web")


def test_all_that_answer_are_asked_and_those_that_do_not_are_named(run_dir: Path, serve: Serve) -> None:
    serve("pods/1/shim.sock", "first")
    serve("pods/2/shim.sock", "second")
    dead = run_dir / "pods" / "0" / "shim.sock"
    dead.parent.mkdir()
    dead.touch()
    answers, silent = ask_all(Config(run_dir=run_dir), "List", pb.ListRequest(), pb.ListResponse)
    assert [entry.pod_name for answer in answers for entry in answer.sandboxes] == ["first", "second"]
    assert silent == [dead]


def test_none_that_answers(run_dir: Path) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        inspect(run_dir, "web")
    with pytest.raises(Unreachable, match="does not answer"):
        ask_all(Config(run_dir=run_dir), "List", pb.ListRequest(), pb.ListResponse)


@pytest.fixture
def hung(run_dir: Path) -> Iterator[Path]:
    """The socket of a daemon that says nothing to anybody."""
    path = run_dir / "pods" / "0" / "shim.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


def test_one_that_hangs_does_not_hide_the_others(hung: Path, run_dir: Path, serve: Serve) -> None:
    serve("pods/1/shim.sock", "web")
    config = Config(run_dir=run_dir)
    answers, silent = ask_all(config, "List", pb.ListRequest(), pb.ListResponse, timeout=0.2)
    assert [entry.pod_name for answer in answers for entry in answer.sandboxes] == ["web"] and silent == [hung]
    door, _ = locate(config, "Inspect", pb.InspectRequest(pod="web"), pb.InspectResponse, timeout=0.2)
    assert door == run_dir / "pods" / "1" / "shim.sock"


def test_none_but_one_that_hangs(hung: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, words = Config(run_dir=run_dir), f"{hung}: the service does not answer in time"
    with pytest.raises(TimedOut, match=words):
        ask_all(config, "List", pb.ListRequest(), pb.ListResponse, timeout=0.2)
    with pytest.raises(TimedOut, match=words):
        locate(config, "Inspect", pb.InspectRequest(pod="web"), pb.InspectResponse, timeout=0.2)
    monkeypatch.setattr("shim.cli.client._TIMEOUT", 0.2)
    path = run_dir / "config.toml"
    path.write_text(f'run_dir = "{run_dir}"\n')
    asked = CliRunner().invoke(main, ["--config", str(path), "events"])
    assert asked.exit_code == 1 and words in asked.stderr


@pytest.mark.parametrize("subcommand", [["ps"], ["inspect", "web"], ["events"], ["events", "-f"]])
def test_who_may_not_connect_is_told_so(subcommand: list[str], run_dir: Path) -> None:
    config = run_dir / "config.toml"
    config.write_text(f'run_dir = "{run_dir}/closed"\n')
    (run_dir / "closed").mkdir(mode=0)
    run_dir.chmod(0o755)
    with another_user():
        asked = CliRunner().invoke(main, ["--config", str(config), *subcommand])
    assert asked.exit_code == 1
    assert asked.stderr == f"unikernel-shim: {run_dir}/closed: the service is closed to this user; run this as root\n"


def test_a_socket_that_is_closed_to_us(run_dir: Path) -> None:
    (run_dir / "shim.sock").touch(mode=0)
    run_dir.chmod(0o755)
    with another_user(), pytest.raises(NodeFault, match="closed to this user"):
        inspect(run_dir, "web")


def test_a_shell_that_may_not_connect_completes_nothing(run_dir: Path) -> None:
    config = run_dir / "config.toml"
    config.write_text(f'run_dir = "{run_dir}/closed"\n')
    (run_dir / "closed").mkdir(mode=0)
    run_dir.chmod(0o755)
    with another_user():
        shell = get_completion_class("bash")
        assert shell is not None
        words = shell(main, {}, "unikernel-shim", "_X").get_completions(["--config", str(config), "inspect"], "")
    assert words == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(NetworkFault, 1), (NodeFault, 1), (TimedOut, 1), (Bug, 1), (WrongState, 2), (NotFound, 2), (InvalidRequest, 2)],
)
async def test_the_exit_code_says_whose_fault_it_is(error: type[ShimError], code: int, run_dir: Path) -> None:
    """What is wrong on the node is no question that makes no sense, although gRPC has one code for both."""

    async def inspect(request: pb.InspectRequest, call: Call) -> pb.InspectResponse:
        raise error("it cannot be read", subject="web")

    method = Method("Inspect", pb.InspectRequest, pb.InspectResponse, inspect)
    server = GrpcServer([Service(pb.DESCRIPTOR.services_by_name["Inspection"].full_name, {"Inspect": method})])
    config = run_dir / "config.toml"
    config.write_text(f'run_dir = "{run_dir}"\n')
    await server.start(run_dir / "shim.sock")
    try:
        asked = await asyncio.to_thread(CliRunner().invoke, main, ["--config", str(config), "inspect", "web"])
    finally:
        await server.stop(0)
    assert (asked.exit_code, asked.stderr) == (code, "unikernel-shim: web: it cannot be read\n")
