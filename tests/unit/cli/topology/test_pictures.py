"""The pictures that are committed are what is drawn now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.topology.pictures import DIRECTORY, GOLDEN, ROOT, pictures

NOW = dict(pictures())


@pytest.mark.parametrize("path", NOW, ids=lambda path: path.name)
def test_a_picture_is_what_is_drawn_now(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == NOW[path], "meant? make pictures"


def test_there_are_no_others() -> None:
    assert {*DIRECTORY.iterdir(), *GOLDEN.iterdir()} == set(NOW)


def test_each_picture_is_shown_on_the_page() -> None:
    page = (ROOT / "docs" / "topology.md").read_text()
    assert [path.name for path in NOW if path.suffix == ".svg" and f"pictures/{path.name}" not in page] == []
