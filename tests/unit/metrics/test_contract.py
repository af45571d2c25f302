"""Metrics have one set of names: what the daemon exposes, its page in docs/, the dashboard and the alerts agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shim import telemetry
from shim.events import Queue
from shim.network.checking.check import Outcome, Probe
from shim.process import pidfd
from shim.telemetry import Phase
from tests.unit.metrics.pages import Node, guest, sandbox

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "contrib" / "grafana" / "unikernel-shim.json"
ALERTS = ROOT / "contrib" / "prometheus" / "alerts.yaml"

_NAME = re.compile(r"\b(?:unikernel_shim|process)_[a-z_]+\b")
_ROW = re.compile(r"^\| `(unikernel_shim_[a-z_]+)(?:\{([a-z,]+)\})?` \|", re.MULTILINE)
_OF_A_HISTOGRAM = re.compile(r"_(?:bucket|count|sum)$")


@pytest.fixture
async def exposed() -> dict[str, frozenset[str]]:
    """Every metric with its labels, as a daemon exposes it that has seen everything."""
    here = 1  # the number of a process that always is
    web = guest((Probe.GUEST, Outcome.PROVEN), pid=here, started=pidfd.start_time(here))
    node = Node(sandbox("web", web))
    node.publisher.queues = lambda: [Queue(destination="a", length=0, oldest=0, delivered=0)]
    with telemetry.recorded_by(node.metrics.instruments):
        for phase in Phase:
            with telemetry.phase(phase, kind="unikernel"):
                pass
        with telemetry.call("service/method", "grpc", {}):
            pass
    found = {}
    for family in text_string_to_metric_families(await node.page()):
        assert family.documentation, family.name
        assert family.samples, f"{family.name} was not seen"
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
    return found


def named(expression: str, exposed: dict[str, frozenset[str]]) -> set[str]:
    """The metrics in an expression, of a histogram's series the histogram."""
    names = set(_NAME.findall(expression))
    return {name if name in exposed else _OF_A_HISTOGRAM.sub("", name) for name in names}


def test_the_page_in_the_docs_has_every_metric_and_no_other(exposed: dict[str, frozenset[str]]) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    told = {name: frozenset(labels.split(",")) - {""} for name, labels in _ROW.findall(text)}
    assert told == {name: labels for name, labels in exposed.items() if not name.startswith("process_")}


def test_the_docs_have_every_phase() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text().partition("## Metrics")[2].partition("## Tracing")[0]
    assert {phase.value for phase in Phase if f"`{phase}`" not in text} == set()


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[str]:
    """Every expression of the dashboard."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_the_dashboard_has_every_metric_and_no_other(exposed: dict[str, frozenset[str]]) -> None:
    asked = {name for expression in expressions() for name in named(expression, exposed)}
    assert asked - set(exposed) == set()
    assert {name for name in exposed if name.startswith("unikernel_shim_")} - asked == set()


def test_the_dashboard_groups_by_labels_that_there_are(exposed: dict[str, frozenset[str]]) -> None:
    for expression in expressions():
        labels = {label for name in named(expression, exposed) for label in exposed[name]}
        asked = {word for group in re.findall(r"\bby \(([a-z, ]+)\)", expression) for word in group.split(", ")}
        matched = set(re.findall(r'([a-z]+)(?:=~|!~|!=|=)"', expression))
        assert (asked | matched) - labels <= {"le", "instance"}, expression


def test_the_dashboard_holds_together() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert 'instance=~"$instance"' in target["expr"], "every panel is of the nodes chosen"


def test_alerts_are_of_metrics_that_there_are(exposed: dict[str, frozenset[str]]) -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        asked = named(rule["expr"], exposed)
        assert asked <= set(exposed) and (asked or "up{" in rule["expr"]), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        labels = {label for name in asked for label in exposed[name]} | {"instance"}
        used = set(re.findall(r"\$labels\.([a-z]+)", json.dumps(rule["annotations"])))
        assert used <= labels, rule["alert"]
