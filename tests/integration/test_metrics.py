"""The metrics of a node with pods, the dashboard and the alerts, as Prometheus' own tool reads them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import yaml

from tests.integration import images, paths, tender_double
from tests.integration.conftest import fresh_node, running
from tests.integration.containerd import Containerd
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.scrape import page, reachable, scraped

CONTRIB = paths.ROOT / "contrib"


def promtool(*arguments: str, text: str = "") -> str:
    """Prometheus' tool. Raises AssertionError with its words, also where it only finds fault with the style."""
    tool = paths.cached("prometheus", "usr", "bin", "promtool")
    done = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_node_with_pods(node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    containerd.load(tender_double.image())
    before = scraped(daemon)
    cri = containerd.cri
    with cri.pod("unikernel-podsandbox") as pod:
        words = [f"address={pod.address}"]
        first = pod.run(tender_double.REFERENCE, name="web", args=words)
        cri.stop(first)
        cri.wait_exit(first)
        pod.run(tender_double.REFERENCE, name="web", attempt=1, args=words)
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        assert node.ping(pod.address)

        written = page(daemon)
        promtool("check", "metrics", text=written)
        now = scraped(daemon)

        def grew(name: str) -> float:
            return now[name] - before.get(name, 0.0)

        assert now['unikernel_shim_sandboxes{state="ready"}'] >= 1
        for kind in ("unikernel", "pause", "container"):
            assert now[f'unikernel_shim_containers{{kind="{kind}",state="running"}}'] >= 1
        for phase in ("create", "start", "engine_create", "engine_start", "plumb", "storage", "configure"):
            assert grew(f'unikernel_shim_start_duration_seconds_count{{kind="unikernel",phase="{phase}"}}') == 2, phase
        for kind in ("pause", "container"):
            assert grew(f'unikernel_shim_start_duration_seconds_count{{kind="{kind}",phase="create"}}') == 1
        assert grew('unikernel_shim_plumbing_duration_seconds_count{step="apply"}') == 2
        assert 0 < grew('unikernel_shim_plumbing_duration_seconds_sum{step="all"}') < 10
        assert grew('unikernel_shim_teardown_duration_seconds_count{phase="unplumb"}') == 1
        assert grew('unikernel_shim_restarts_total{kind="unikernel"}') == 1
        labels = f'namespace="{pod.config.metadata.namespace}",pod="{pod.name}"'
        assert now[f'unikernel_shim_monitor_memory_bytes{{monitor="spt",{labels}}}'] > 1 << 20
        assert f'unikernel_shim_monitor_cpu_seconds_total{{monitor="spt",{labels}}}' in now
        create = 'code="OK",method="Create",service="containerd.task.v3.Task",transport="ttrpc"'
        assert grew(f"unikernel_shim_rpc_duration_seconds_count{{{create}}}") == 4
        waiting = 'method="Wait",service="containerd.task.v3.Task",transport="ttrpc"'
        assert now[f"unikernel_shim_rpcs_in_flight{{{waiting}}}"] >= 3
        assert sum(value for name, value in now.items() if name.startswith("unikernel_shim_events_delivered_total")) > 0
        assert sum(value for name, value in now.items() if name.startswith("unikernel_shim_events_queued")) == 0


def test_guests_are_checked_unasked() -> None:
    with fresh_node("m") as node:
        daemon, containerd = Daemon(node, more="\n[check]\nevery = 1\n"), Containerd(node)
        with running(daemon), running(containerd):
            containerd.load(tender_double.image())
            with containerd.cri.pod("unikernel") as pod:
                pod.run(tender_double.REFERENCE, args=[f"address={pod.address}"])
                deadline = time.monotonic() + 10
                while not (proofs := reachable(daemon, pod.name)):
                    assert time.monotonic() < deadline, daemon.tail()
                    time.sleep(0.1)
                assert proofs == {"guest": 1.0, "gateway": 1.0, "router": 1.0}


def test_alerts() -> None:
    promtool("check", "rules", str(CONTRIB / "prometheus" / "alerts.yaml"))
    promtool("test", "rules", str(Path(__file__).with_name("alerts.yaml")))


def test_the_dashboards_expressions(tmp_path: Path) -> None:
    """Each as a rule's, with Grafana's variables filled in as Grafana does."""
    panels = json.loads((CONTRIB / "grafana" / "unikernel-shim.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    filled = [expr.replace("$__rate_interval", "1m").replace("$instance", ".*") for expr in asked]
    assert not [expr for expr in filled if re.search(r"\$", expr)]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))
