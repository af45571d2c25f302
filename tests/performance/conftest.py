"""The run of a benchmark: which figures are asked for, where they are collected, and what becomes of them at the end.

`make bench FIGURES="start courier"` measures these; without it all but those that are measured only on request. Nothing
here passes or fails by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shim.bench.figures import Figure
from tests.integration.conftest import fresh_node, running
from tests.performance import results
from tests.performance.machine import Machine, machine
from tests.performance.place import Place


class Measured:
    """The figures of this run, in the order in which they were asked for."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._figures: list[Figure] = []
        self.notes: list[str] = []

    def figure(self, key: str, title: str, unit: str = "ms", **options: Any) -> Figure:
        """A figure to be filled; `options` are Figure's."""
        made = Figure(key, title, unit, **options)
        self._figures.append(made)
        return made

    def note(self, text: str) -> None:
        """Say something beside the figures, once: who did not take part, and why."""
        if text not in self.notes:
            self.notes.append(text)

    def results(self) -> results.Results:
        """What has been measured so far, also where something failed on the way."""
        tables = tuple(figure.table() for figure in self._figures if figure.samples)
        return results.Results(self._machine, machine().load, tables, tuple(self.notes))


_measured = pytest.StashKey[Measured]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", default="", help="which figures, by name; `all` for those on request, too")
    parser.addoption("--pods", type=int, default=100, help="up to how many pods cost is measured as they grow")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "figure(name, on_request=False): what a test measures, for --figures")
    config.stash[_measured] = Measured(machine())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marks = {item: mark for item in items if (mark := item.get_closest_marker("figure"))}
    names = {mark.args[0] for mark in marks.values()}
    wanted = set(config.getoption("--figures").replace(",", " ").split())
    if unknown := wanted - names - {"all"}:
        raise pytest.UsageError(
            f"no figure {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}, and all"
        )

    def chosen(item: pytest.Item) -> bool:
        mark = marks.get(item)
        if mark is None or "all" in wanted:
            return True
        return mark.args[0] in wanted if wanted else not mark.kwargs.get("on_request", False)

    left = [item for item in items if not chosen(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if chosen(item)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[_measured].results()
    if not found.figures:
        return
    results.save(found, results.FILE)
    terminalreporter.section("figures")
    for line in results.lines(found):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"written to {results.FILE}")


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Measured:
    """Where figures are put."""
    return pytestconfig.stash[_measured]


@pytest.fixture(scope="session")
def place(measured: Measured) -> Iterator[Place]:
    """A node with a daemon and a containerd that tests share: each removes what it makes."""
    with fresh_node("bench") as node:
        made = Place(node)
        with running(made.daemon), running(made.containerd):
            made.prepare(measured.note)
            yield made
