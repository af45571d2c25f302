"""docs/cri.md accounts for every case of cri-tools' suite: each test it names exists, and none of ours is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "tests" / "integration"
_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_HEADING = re.compile(r"^## ([^:]+)(?:: (.+))?$")
_SEVERAL = re.compile(r" \((\d+)\)$")


def _rows() -> list[tuple[str, str, str]]:
    """Heading, case and answer of each row."""
    found: list[tuple[str, str, str]] = []
    heading = ""
    for line in (ROOT / "docs" / "cri.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line
        elif line.startswith("| ") and not line.startswith(("| case ", "| behaviour ")):
            _, case, answer, _ = line.split("|")
            found.append((heading, case.strip(), answer.strip()))
    return found


def _tests_of(file: str) -> set[str]:
    """The names of a module's tests."""
    tree = ast.parse((INTEGRATION / file).read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_named_exists() -> None:
    for _, case, answer in _rows():
        for file, name in _TEST.findall(answer):
            assert name in _tests_of(file), f"{case}: {file} has no {name}"


def test_every_case_has_a_test_or_a_reason() -> None:
    for heading, case, answer in _rows():
        _, _, reason = answer.partition("not applicable: ")
        assert _TEST.search(answer) or len(reason.split()) > 3, f"{heading}: {case}: {answer}"


def test_the_cases_are_as_many_as_each_part_says() -> None:
    for heading in {heading for heading, *_ in _rows()}:
        match = _HEADING.match(heading)
        assert match
        if files := match.group(2):
            promised = sum(int(part.split()[1]) for part in files.split(", "))
            cases = [case for of, case, _ in _rows() if of == heading]
            counted = sum(int(found.group(1)) if (found := _SEVERAL.search(case)) else 1 for case in cases)
            assert counted == promised, heading


def test_every_test_of_the_suite_is_on_the_page() -> None:
    named = {found for _, _, answer in _rows() for found in _TEST.findall(answer)}
    for path in sorted(INTEGRATION.glob("test_cri_*.py")):
        missing = _tests_of(path.name) - {name for file, name in named if file == path.name}
        assert not missing, f"{path.name}: {missing}"
