"""What `unikernel-shim doctor` prints, and its exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from shim import log
from shim.cli.main import main
from shim.doctor import examination
from shim.doctor.examination import Scope
from shim.doctor.finding import Area, Finding, Outcome

GOOD = Finding(area=Area.KERNEL, subject="version", outcome=Outcome.GOOD, what="Linux 6.1", why="never told")
BAD = Finding(
    area=Area.CONTAINERD,
    subject="handler",
    outcome=Outcome.BAD,
    what="none\x1b[31m",
    why="it must",
    fix="cat <<EOF\n[a]\nEOF",
)
DOUBTFUL = Finding(area=Area.ENGINE, subject="crun", outcome=Outcome.DOUBTFUL, what="odd", fix="mend it")


def doctor(monkeypatch: pytest.MonkeyPatch, found: list[Finding], *words: str) -> tuple[Result, list[Scope]]:
    asked: list[Scope] = []

    async def examine(scope: Scope) -> list[Finding]:
        asked.append(scope)
        return found

    monkeypatch.setattr(examination, "examine", examine)
    monkeypatch.setattr(log, "configure", lambda level: None)  # which would be for all tests that follow
    return CliRunner().invoke(main, ["doctor", *words]), asked


def test_lines_that_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = doctor(monkeypatch, [GOOD, DOUBTFUL, BAD])
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "good           kernel      version: Linux 6.1",
        "doubtful       engine      crun: odd",
        "  fix:  mend it",
        "bad            containerd  handler: none\\x1b[31m",
        "  why:  it must",
        "  fix:",
        "cat <<EOF",
        "[a]",
        "EOF",
        "pods cannot run: 1 bad, 1 doubtful",
    ]


def test_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = doctor(monkeypatch, [GOOD, DOUBTFUL])
    assert done.exit_code == 0 and done.stdout.endswith("pods can run: 1 doubtful\n")
    done, _ = doctor(monkeypatch, [GOOD])
    assert done.exit_code == 0 and done.stdout.endswith("pods can run: nothing is wrong\n")


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = doctor(monkeypatch, [GOOD, BAD], "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and said["can_run"] is False
    assert said["findings"][1] == {
        "area": "containerd", "subject": "handler", "outcome": "bad", "what": "none\x1b[31m", "why": "it must",
        "fix": "cat <<EOF\n[a]\nEOF",
    }  # fmt: skip


def test_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    done, (scope,) = doctor(
        monkeypatch, [], "--containerd", "unix:///run/k3s/s.sock", "--containerd-config", "/etc/hostname"
    )
    assert done.exit_code == 0
    assert (str(scope.containerd), str(scope.containerd_config)) == ("/run/k3s/s.sock", "/etc/hostname")


@pytest.mark.parametrize(
    "words", [["--containerd-config", "/no/such"], ["--containerd-config", "/"], ["--frobnicate"], ["more"]]
)
def test_wrong_usage(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = doctor(monkeypatch, [], *words)
    assert done.exit_code == 2 and not asked and "Traceback" not in done.output


def test_a_configuration_that_is_named_and_not_there() -> None:
    done = CliRunner().invoke(main, ["--config", "/no/such", "doctor"])
    assert done.exit_code == 2 and "no such configuration file" in done.output
