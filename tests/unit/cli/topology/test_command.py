"""What the subcommand makes of the service's answer, and of a user's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from shim.cli import client
from shim.cli.main import main
from shim.wire import inspection_pb2 as pb
from tests.unit.cli.topology.pictures import PICTURES


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the service answers with, in turn."""
    found: list[str] = []

    def ask(config: Any, method: str, request: pb.TopologyRequest, answer: Any) -> pb.TopologyResponse:
        assert (method, request.pod) == ("Topology", "web")
        return pb.TopologyResponse(json=found.pop(0))

    monkeypatch.setattr(client, "ask", ask)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["topology", *words], catch_exceptions=False)


@pytest.mark.parametrize(("name", "code"), [("bridge", 0), ("broken", 1)])
@pytest.mark.parametrize("form", [(), ("--json",), ("--svg", "-")])
def test_the_exit_code_says_whether_something_is_wrong(
    name: str, code: int, form: tuple[str, ...], answers: list[str]
) -> None:
    answers.append(msgspec.json.encode(PICTURES[name]()).decode())
    done = run("web", *form)
    assert done.exit_code == code and "02:00:5e:10:00:02" in done.stdout


@pytest.mark.parametrize("answer", ['{"id": "s"}', "[]", '{"id": 1}'])
def test_an_answer_of_another_version_is_said_in_a_line(answer: str, answers: list[str]) -> None:
    answers.append(answer)
    done = run("web")
    assert done.exit_code == 1 and "different versions" in done.stderr and len(done.stderr.splitlines()) == 1


def test_keys_of_a_later_version_are_passed_over(answers: list[str]) -> None:
    answers.append(msgspec.json.encode({**msgspec.to_builtins(PICTURES["bridge"]()), "later": 1}).decode())
    assert run("web").exit_code == 0


def test_the_json_names_a_pod_as_other_subcommands_do(answers: list[str]) -> None:
    answers.append(msgspec.json.encode(PICTURES["bridge"]()).decode())
    found = msgspec.json.decode(run("web", "--json").stdout)
    assert found["id"] and found["pod"] == {"namespace": "default", "name": "web"}
