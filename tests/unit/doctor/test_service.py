"""The service's configuration and its daemon: each state of both."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import msgspec
import pytest

from shim import __version__
from shim.config import Config
from shim.doctor import service
from shim.doctor.finding import Finding, Outcome
from shim.doctor.service import Service
from shim.wire import inspection_pb2 as pb

ALIVE = Service(path=Path("/run/x/shim.sock"), socket="alive", mode=0o600, owner=0, version=__version__)


def judged(demanded: bool = True, **changed: object) -> dict[str, Finding]:
    found = service.judge(msgspec.structs.replace(ALIVE, **changed), demanded)
    return {finding.subject: finding for finding in found}


def test_one_that_answers() -> None:
    assert [each.outcome for each in judged().values()] == [Outcome.GOOD]


@pytest.mark.parametrize("state", ["none", "dead"])
def test_one_that_does_not_run(state: str) -> None:
    """containerd asks it itself by the sandbox plugin; couriers start it."""
    assert judged(demanded=True, socket=state)["daemon"].outcome is Outcome.BAD
    assert judged(demanded=False, socket=state)["daemon"].outcome is Outcome.DOUBTFUL


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"socket": "closed"}, Outcome.UNSEEN),
        ({"socket": "no socket"}, Outcome.BAD),
        ({"refusal": "UNAVAILABLE: gone"}, Outcome.BAD),
        ({"version": "0.0.1"}, Outcome.DOUBTFUL),
        ({"version": ""}, Outcome.DOUBTFUL),
    ],
)
def test_other_states(changed: dict[str, object], outcome: Outcome) -> None:
    found = judged(**changed)["daemon"]  # type: ignore[arg-type]
    assert found.outcome is outcome and found.fix


@pytest.mark.parametrize("changed", [{"mode": 0o666}, {"mode": 0o660}, {"owner": 1000}])
def test_a_socket_that_others_can_open(changed: dict[str, object]) -> None:
    assert judged(**changed)["socket"].outcome is Outcome.DOUBTFUL  # type: ignore[arg-type]


@pytest.fixture
def config() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="uks") as directory:
        yield Config(run_dir=Path(directory))


async def seen(config: Config) -> Service:
    return await service.observe(config)


async def test_what_may_be_at_its_place(config: Config) -> None:
    path = config.grpc_socket
    assert (await seen(config)).socket == "none"
    path.write_text("")
    assert (await seen(config)).socket == "no socket"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    assert (await seen(config)).socket == "dead"


@pytest.mark.parametrize(("methods", "version", "refused"), [({"About"}, "9.9", False), (set(), "", False)])
async def test_it_is_asked_for_its_version(methods: set[str], version: str, refused: bool, config: Config) -> None:
    def about(request: bytes, context: grpc.ServicerContext) -> bytes:
        return pb.AboutResponse(version="9.9").SerializeToString()

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(about)
    server = grpc.server(ThreadPoolExecutor(1))
    name = pb.DESCRIPTOR.services_by_name["Inspection"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, dict.fromkeys(methods, handler)),))
    server.add_insecure_port(f"unix:{config.grpc_socket}")
    server.start()
    try:
        found = await seen(config)
    finally:
        server.stop(0).wait()
    assert (found.socket, found.version, bool(found.refusal)) == ("alive", version, refused)


async def test_one_that_takes_the_connection_and_says_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(os.fspath(config.grpc_socket))
        mute.listen()
        assert (await seen(config)).refusal.startswith("DEADLINE_EXCEEDED")


def test_a_configuration_that_loads_and_those_that_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text('run_dir = "/run/x"\n')
    found, said = service.read(file)
    assert found.run_dir == Path("/run/x") and said.outcome is Outcome.GOOD
    file.write_text("run_dri = 1\n")
    found, said = service.read(file)
    assert found == Config() and said.outcome is Outcome.BAD and "run_dri" in said.what and os.fspath(file) in said.fix
    monkeypatch.setenv("UNIKERNEL_SHIM_CONFIG", os.fspath(tmp_path / "none"))
    assert service.read(None)[1].outcome is Outcome.BAD
