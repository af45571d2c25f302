"""The command as a whole: every subcommand can be asked what it does."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from shim.cli.main import main


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", _commands(main), ids=" ".join)
def test_every_subcommand_and_every_option_has_help(path: tuple[str, ...]) -> None:
    asked = CliRunner().invoke(main, [*path, "--help"])
    assert asked.exit_code == 0, asked.output
    assert "Exit codes:" in asked.output
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None and found.help
        command = found
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), parameter.name


def test_an_unknown_subcommand_is_the_callers_mistake() -> None:
    asked = CliRunner().invoke(main, ["frobnicate"])
    assert asked.exit_code == 2 and "frobnicate" in asked.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["events", "--pod="], "no pod is named"),
        (["logs", "--since=", "web"], "neither a duration nor a time"),
        (["plan", "--netns="], "no network namespace is named"),
        (["topology", "--netns="], "no network namespace is named"),
        (["run", "--netns=", __file__], "no network namespace is named"),
    ],
)
def test_a_shells_empty_variable_is_not_taken_for_nothing_said(words: list[str], said: str) -> None:
    asked = CliRunner().invoke(main, words)
    assert asked.exit_code == 2 and said in asked.stderr
