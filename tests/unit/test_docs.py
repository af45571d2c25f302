"""The pages of docs/: what is read off the code is up to date, and the whole can be built as a site."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from shim import config

ROOT = Path(__file__).resolve().parents[2]


def _generate() -> ModuleType:
    """docs/ is no package: its program is loaded from its file."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()


@pytest.mark.parametrize("path", sorted(GENERATE.PAGES))
def test_a_page_that_is_read_off_the_code_is_what_the_code_says(path: str) -> None:
    assert (ROOT / path).read_text() == GENERATE.PAGES[path](), "run: make docs"


def test_the_file_to_edit_is_all_defaults_as_it_is_and_uncommented() -> None:
    text = (ROOT / "contrib" / "config.toml").read_text()
    assert config.parse(text, "as it is") == config.Config()
    settings = [line.removeprefix("# ") for line in text.splitlines()[1:]]
    assert config.parse("\n".join(settings), "uncommented") == config.Config()
    assert len(tomllib.loads("\n".join(settings))) > 5


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "dirhtml", ROOT / "docs", tmp_path / "site"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= pages
