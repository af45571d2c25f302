"""What subcommands print where there is no terminal; tests/integration/test_terminal.py has one."""

from __future__ import annotations

import pytest

from shim.cli import terminal


def test_a_table_in_a_pipe_is_a_line_a_row_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("POD", "STATE"), [("default/web", ("running", "good")), ("x", "")])
    assert capsys.readouterr().out == "POD\tSTATE\ndefault/web\trunning\nx\t\n"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [("\x1b[31mred", "\\x1b[31mred"), ("a\tb\nc", "a\\tb\\nc"), ("\u202eevil", "\\u202eevil"), ("naïve ☃", "naïve ☃")],
)
def test_what_a_terminal_would_obey_is_shown(hostile: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("WORDS",), [(hostile,)])
    assert capsys.readouterr().out == f"WORDS\n{shown}\n"


def test_json_is_indented_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"pod": {"name": "wéb"}})
    assert capsys.readouterr().out == '{\n  "pod": {\n    "name": "wéb"\n  }\n}\n'
