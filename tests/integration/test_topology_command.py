"""`unikernel-shim topology POD` of real pods: in the terminal, as SVG and JSON, followed, and after the pod's end.

The guest is the tender's double: it answers at its address, and nothing here is about what it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shim.network.topology.model import Topology
from tests.integration import images, paths, tender_double
from tests.integration.containerd import LAYOUTS, Containerd, handler
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.pseudo import OnTerminal
from tests.integration.ready import eventually
from tests.integration.test_grpcurl import grpcurl
from tests.integration.test_inspection import shim

pytestmark = pytest.mark.timeout(60)

DNS = {"servers": ["192.0.2.53"], "searches": [], "options": []}
STRANGER = "02:00:00:00:00:99"
#: What takes a terminal's second screen and brings the first one back, hides and shows its cursor (xterm's 1049, 25).
_TAKEN, _BACK, _CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture(scope="module")
def pod(node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck) -> Iterator[Pod]:
    containerd.load(tender_double.image())
    with containerd.cri.pod("unikernel", name="drawn", dns=DNS) as made:
        made.run(tender_double.REFERENCE, args=[f"address={made.address}"])
        eventually(lambda: node.ping(made.address))
        yield made


def topology(daemon: Daemon, name: str) -> Topology:
    return msgspec.json.decode(shim(daemon, "topology", "--json", name).stdout, type=Topology)


def in_pod(daemon: Daemon, pod: Pod, *command: str) -> None:
    netns = topology(daemon, pod.id).netns
    subprocess.run(["nsenter", f"--net={netns}", *command], check=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pod_drawn_in_every_form(
    layout: str, node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck, tmp_path: Path
) -> None:
    with containerd.cri.pod(handler("unikernel", layout), dns=DNS) as pod:
        containerd.load(tender_double.image())
        container = pod.run(tender_double.REFERENCE, args=[f"address={pod.address}"])
        eventually(lambda: node.ping(pod.address))
        found = topology(daemon, pod.name)
        assert (found.id, found.pod.name, found.faults) == (pod.id, pod.name, ())
        guest, peer = found.now[0].elements[0], found.now[0].elements[-1]
        inspected = json.loads(shim(daemon, "inspect", "--json", pod.id).stdout)["unikernel"]
        assert guest.mac == inspected["nics"][0]["mac"] and guest.dns == ("192.0.2.53",)
        assert guest.kind == f"spt (pid {containerd.cri.pid(container)})"
        assert [(entry.address, entry.mac) for entry in peer.neighbours] == [(pod.address, guest.mac)]
        assert pod.address in found.before[0].elements[1].addresses[0]

        done = shim(daemon, "topology", pod.name)
        assert done.returncode == 0 and "nothing is wrong" in done.stdout and guest.mac in done.stdout
        picture = tmp_path / "pod.svg"
        assert shim(daemon, "topology", pod.id[:10], "--svg", str(picture)).returncode == 0
        assert picture.read_text() == shim(daemon, "topology", pod.id, "--svg", "-").stdout
        asked = ("-d", json.dumps({"pod": pod.id}), "io.unikernel.shim.v1.Inspection/Topology")
        said = json.loads(grpcurl(daemon, *asked).stdout)
        assert msgspec.json.decode(said["json"], type=Topology).now[0].elements[0] == guest

        device = node.ip("route", "get", pod.address)[0]["dev"]
        node.run("ip", "neighbour", "replace", pod.address, "lladdr", STRANGER, "dev", device, "nud", "permanent")
        done = shim(daemon, "topology", pod.name)
        node.run("ip", "neighbour", "del", pod.address, "dev", device)
        assert done.returncode == 1 and "1 fault" in done.stdout and f"to {STRANGER}" in done.stdout

        containerd.cri.stop(container)
        containerd.cri.wait_exit(container)
        after = topology(daemon, pod.id)
        assert not after.plumbed and after.faults == ()
        assert after.now[0].elements[1].addresses == found.before[0].elements[1].addresses
        assert after.now[0].elements[1].mac == guest.mac
        pod.stop()
        done = shim(daemon, "topology", pod.id)
        assert done.returncode == 2 and "has ended" in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = shim(daemon, "topology", pod.id)
    assert done.returncode == 2 and "no such pod" in done.stderr


def test_a_pod_without_a_unikernel_is_drawn_as_it_is(containerd: Containerd, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        pod.run(images.BUSYBOX, command=["/bin/sleep", "3600"])
        done = shim(daemon, "topology", pod.name)
        assert done.returncode == 0 and "no unikernel in it" in done.stdout and pod.address in done.stdout


def on_terminal(daemon: Daemon, *words: str, columns: int, env: dict[str, str] | None = None) -> OnTerminal:
    argv = [str(paths.DAEMON), "--config", str(daemon.config), "topology", *words]
    return OnTerminal(argv, columns=columns, env=env)


@pytest.mark.parametrize("columns", [40, 200])
def test_on_a_terminal_it_fits_and_has_colour(pod: Pod, daemon: Daemon, columns: int) -> None:
    with on_terminal(daemon, pod.name, columns=columns) as shown:
        assert shown.finish() == 0
        printed = shown.raw.decode()
    lines = printed.splitlines()
    assert "\x1b[32mnothing is wrong" in printed and "┌" in printed
    assert len([line for line in lines if "┌" in line]) >= 5 and "…" not in printed


def test_without_colour_and_without_box_drawing(pod: Pod, daemon: Daemon) -> None:
    with on_terminal(daemon, pod.name, columns=80, env={"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}) as shown:
        assert shown.finish() == 0
        assert shown.raw.isascii() and b"\x1b[3" not in shown.raw and b"nothing is wrong" in shown.raw


def as_it_was(shown: OnTerminal, mode: list[Any]) -> bool:
    """Whether the terminal is what it was before the command: its screen, its cursor, its settings, and no trace."""
    assert b"Traceback" not in shown.raw and b"Aborted" not in shown.raw
    assert shown.raw.count(_TAKEN) == shown.raw.count(_BACK) == 1
    return shown.raw.index(_BACK) > shown.raw.index(_TAKEN) and _CURSOR in shown.raw and shown.mode() == mode


def test_it_is_followed_on_a_terminal_which_is_then_as_it_was(pod: Pod, daemon: Daemon) -> None:
    with on_terminal(daemon, pod.name, "--watch", columns=100) as shown:
        mode = shown.mode()
        shown.until("nothing is wrong")
        assert _TAKEN in shown.raw and _BACK not in shown.raw
        in_pod(daemon, pod, "ip", "link", "set", "tap0", "mtu", "1400")
        try:
            shown.until("fault 1: tap0 has an MTU of 1400")
            shown.resize(100, 12)
            shown.until("make the window higher")
        finally:
            in_pod(daemon, pod, "ip", "link", "set", "tap0", "mtu", "1500")
        shown.type(b"\x03")
        assert shown.finish() == 128 + signal.SIGINT and as_it_was(shown, mode)


def test_a_terminal_is_as_it_was_whatever_ends_it(pod: Pod, daemon: Daemon) -> None:
    with on_terminal(daemon, pod.name, "--watch", columns=100) as shown:
        mode = shown.mode()
        shown.until("nothing is wrong")
        shown.process.terminate()
        assert shown.finish() == 128 + signal.SIGTERM and as_it_was(shown, mode)


def test_it_is_followed_in_a_pipe_a_drawing_for_each_change(pod: Pod, daemon: Daemon) -> None:
    argv = [str(paths.DAEMON), "--config", str(daemon.config), "topology", pod.name, "--watch"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        first = _until(watching.stdout, b"nothing is wrong")
        in_pod(daemon, pod, "ip", "link", "set", "tap0", "mtu", "1400")
        try:
            second = _until(watching.stdout, b"1 fault")
        finally:
            in_pod(daemon, pod, "ip", "link", "set", "tap0", "mtu", "1500")
        _until(watching.stdout, b"nothing is wrong")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 128 + signal.SIGINT and watching.stderr.read() == b""
    assert b"\x1b" not in first + second


def _until(stream: Any, words: bytes) -> bytes:
    """What comes up to a line with those words."""
    found = b""
    while words not in found:
        line: bytes = stream.readline()
        assert line, found
        found += line
    return found


def test_watching_ends_with_its_pod(containerd: Containerd, node: Node, daemon: Daemon, clean: LeakCheck) -> None:
    with containerd.cri.pod("unikernel") as pod:
        pod.run(tender_double.REFERENCE, args=[f"address={pod.address}"])
        with on_terminal(daemon, pod.id, "--watch", columns=80) as shown:
            shown.until("nothing is wrong")
            pod.stop()
            assert shown.finish() == 2
            assert b"has ended" in shown.raw[shown.raw.rindex(_BACK) :]
