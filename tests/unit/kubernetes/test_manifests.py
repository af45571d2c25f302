"""Every manifest of contrib/ against Kubernetes' own schemas, and against what this runtime itself makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from contrib.kubernetes.installer import __main__, label
from shim.oci.annotations import wishes
from tests.unit.kubernetes.a_node import CONTRIB

#: kind's own configuration, which is no object of Kubernetes': the real kind reads it (tests/integration/test_kind.py).
KIND = CONTRIB / "kind/cluster.yaml"
#: Prometheus' rules are no manifests: promtool reads them (tests/integration/test_metrics.py).
FILES = sorted(path for path in CONTRIB.rglob("*.yaml") if path != KIND and path.parent.name != "prometheus")


def objects(*files: Path) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from yaml.safe_load_all(file.read_text())


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Metadata and specification of every pod that the manifests make."""
    for each in objects(*FILES):
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if template:
            yield template.get("metadata", {}), template["spec"]


@pytest.mark.parametrize("version", ["1.33", "1.35", "1.37"])
@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(CONTRIB)))
def test_it_is_what_kubernetes_takes(file: Path, version: str) -> None:
    for each in objects(file):
        kubernetes_validate.validate(each, version, strict=True)


def test_a_misspelt_key_is_seen() -> None:
    """The check above checks."""
    wrong = next(objects(CONTRIB / "kubernetes/runtimeclass.yaml")) | {"handlr": "unikernel"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_our_annotations_are_ours() -> None:
    read = [wishes(metadata.get("annotations", {})) for metadata, _ in pods()]
    assert {wish.guest for wish in read} >= {"linux"}


def test_pods_name_runtimes_that_there_are() -> None:
    classes = {each["metadata"]["name"]: each for each in objects(CONTRIB / "kubernetes/runtimeclass.yaml")}
    assert {spec["runtimeClassName"] for _, spec in pods() if "runtimeClassName" in spec} <= set(classes)
    assert {each["handler"] for each in classes.values()} == {"unikernel"}
    assert {tuple(each["scheduling"]["nodeSelector"].items()) for each in classes.values()} == {
        ((label.LABEL, "true"),)
    }


def test_overhead_is_what_was_measured() -> None:
    page = (CONTRIB.parent / "docs/runtimeclass.md").read_text()
    for each in objects(CONTRIB / "kubernetes/runtimeclass.yaml"):
        if "overhead" in each:
            monitor = each["metadata"]["name"].removeprefix("unikernel-")
            row = next(line for line in page.splitlines() if line.startswith(f"| `{monitor}` |"))
            assert row.endswith(f"`memory: {each['overhead']['podFixed']['memory']}` |")


def test_unikernels_are_probed_over_the_network() -> None:
    for _, spec in pods():
        if "runtimeClassName" not in spec:
            continue
        probes = [c[kind] for c in spec["containers"] for kind in c if kind.endswith("Probe")]
        assert probes
        assert not any("exec" in probe for probe in probes)


@pytest.mark.parametrize("name", ["install", "uninstall"])
def test_the_installer_is_asked_what_it_knows(name: str) -> None:
    [daemons] = objects(CONTRIB / f"kubernetes/{name}.yaml")
    spec = daemons["spec"]["template"]["spec"]
    [container] = spec["containers"]
    for words in (container["args"], container["readinessProbe"]["exec"]["command"][1:]):
        command = __main__.main.commands[words[0]]
        assert set(words[1:]) <= {option for parameter in command.params for option in parameter.opts}
    assert container["env"][0]["name"] == "INSTALLER_NODE"
    assert container["volumeMounts"][0]["mountPath"] == "/host"
    accounts = [each["metadata"]["name"] for each in objects(CONTRIB / "kubernetes/rbac.yaml")]
    assert spec["serviceAccountName"] in accounts
    assert daemons["metadata"]["namespace"] in accounts
