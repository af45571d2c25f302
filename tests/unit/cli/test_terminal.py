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


@pytest.mark.parametrize(
    ("written", "coloured", "uncoloured"),
    [
        ("plain\ttext", "plain\ttext", "plain\ttext"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "\\x1b]0;title\\x07x", "\\x1b]0;title\\x07x"),
        ("\x1b[2J\x1b[6n", "\\x1b[2J\\x1b[6n", "\\x1b[2J\\x1b[6n"),
        ("", "", ""),
    ],
)
def test_of_what_a_guest_wrote_colours_alone_are_obeyed(
    written: str, coloured: str, uncoloured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "in_colour", lambda: True)
    assert terminal.harmless(written) == coloured
    monkeypatch.setattr(terminal, "in_colour", lambda: False)
    assert terminal.harmless(written) == uncoloured


@pytest.mark.parametrize(
    ("locale", "shown"),
    [
        ({"LC_ALL": "C"}, "na\\xefve"),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "na\\xefve"),
        ({}, "na\\xefve"),
        ({"LANG": "en_US.UTF-8"}, "naïve"),
        ({"LC_CTYPE": "C.utf8"}, "naïve"),
    ],
)
def test_a_terminal_gets_what_its_locale_has(
    locale: dict[str, str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in locale.items():
        monkeypatch.setenv(variable, value)
    assert terminal.plain("naïve") == "naïve"  # in a pipe
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    assert terminal.plain("naïve") == shown


def test_json_is_indented_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"pod": {"name": "wéb"}})
    assert capsys.readouterr().out == '{\n  "pod": {\n    "name": "wéb"\n  }\n}\n'
