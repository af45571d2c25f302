"""What subcommands show on a real pseudo-terminal, narrow and wide, with and without colours, and in a pipe.

All of them look at one pod: a guest with a terminal (the tender's double), a shell beside it, and what has ended.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.integration import images, paths, tender_double
from tests.integration.containerd import Containerd
from tests.integration.cri import Pod
from tests.integration.daemon import Daemon
from tests.integration.leaks import LeakCheck
from tests.integration.node import Node
from tests.integration.pseudo import OnTerminal, command_line
from tests.integration.ready import eventually, served
from tests.integration.test_inspection import shim

pytestmark = pytest.mark.timeout(60)

ESCAPE = b"\x1d"
WIDTHS = (40, 80, 200)
PLAIN = ({"NO_COLOR": "1"}, {"TERM": "dumb"})
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m")  # ECMA-48's foreground colours


class Shown:
    """The pod that is looked at, with its containers' ids."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        words = [f"address={pod.address}", "say=hello \x1b]0;evil\x07\x1b[31mred\x1b[0m", "say=second", "echo"]
        self.ended = pod.run(tender_double.REFERENCE, name="guest", args=["say=earlier", "exit=3"])
        pod.client.wait_exit(self.ended)
        pod.client.remove(self.ended)
        self.shell = pod.run(images.BUSYBOX, name="shell", command=["/bin/sh"], tty=True, stdin=True)
        self.silent = pod.run(images.BUSYBOX, name="silent", command=["/bin/sh", "-c", "echo quiet; sleep 3600"])
        self.guest = pod.run(tender_double.REFERENCE, name="guest", attempt=1, args=words, tty=True, stdin=True)


@pytest.fixture(scope="module")
def shown(node: Node, containerd: Containerd, daemon: Daemon, clean_module: LeakCheck) -> Iterator[Shown]:
    containerd.load(tender_double.image())
    with containerd.cri.pod("unikernel", name="terminal-pod") as pod:
        made = Shown(pod)
        eventually(lambda: node.ping(pod.address))
        yield made


def on_terminal(daemon: Daemon, *words: str, columns: int = 80, env: Mapping[str, str] | None = None) -> OnTerminal:
    """The command line at a person's terminal."""
    return OnTerminal(command_line(daemon, *words), columns=columns, env=env)


def read(daemon: Daemon, *words: str, columns: int = 80, env: Mapping[str, str] | None = None) -> OnTerminal:
    """The same, once it has ended well."""
    with on_terminal(daemon, *words, columns=columns, env=env) as made:
        assert made.finish() == 0, made.text
        return made


def joined(screen: OnTerminal) -> str:
    """All that is shown, with no regard to where it wraps."""
    return "".join(screen.text.split())


@pytest.mark.parametrize("columns", WIDTHS)
def test_ps(columns: int, shown: Shown, daemon: Daemon) -> None:
    screen = read(daemon, "ps", columns=columns)
    assert max(map(len, screen.lines)) <= columns
    wanted = ("POD", "STATE", "running", "solo5", "spt", shown.pod.address)
    assert all(word in screen.text for word in wanted), screen.text
    assert COLOUR.search(screen.raw)
    if columns == 40:
        block = next(line for line in screen.lines if "terminal-pod" in line)
        assert block.split() == ["POD", "default/terminal-pod"]
        assert any(line.split() == ["ADDRESS", shown.pod.address] for line in screen.lines)
    else:
        row = next(line for line in screen.lines if shown.pod.id[:12] in line)
        assert screen.lines[0].split() == ["POD", "ID", "STATE", "GUEST", "MONITOR", "ADDRESS", "AGE"]
        assert columns == 80 or row.split()[:6] == [
            "default/terminal-pod", shown.pod.id[:12], "running", "solo5", "spt", shown.pod.address,
        ]  # fmt: skip


@pytest.mark.parametrize("words", ["ps", "inspect terminal-pod", "check terminal-pod", "events"])
def test_no_colour_where_it_is_not_wanted_or_not_there(words: str, shown: Shown, daemon: Daemon) -> None:
    for env in PLAIN:
        screen = read(daemon, *words.split(), columns=40, env=env)
        assert not COLOUR.search(screen.raw), (env, screen.raw)
        assert max(map(len, screen.lines)) <= 40
    piped = shim(daemon, *words.split())
    assert piped.returncode == 0 and "\x1b" not in piped.stdout and "terminal-pod" in piped.stdout


@pytest.mark.parametrize("words", ["ps", "inspect terminal-pod", "events"])
def test_a_locale_without_unicode_gets_none(words: str, shown: Shown, daemon: Daemon) -> None:
    screen = read(daemon, *words.split(), env={"LC_ALL": "C"})
    assert screen.raw.isascii() and "terminal-pod" in joined(screen)


def test_ps_for_programs(shown: Shown, daemon: Daemon) -> None:
    header, *rows = [line.split("\t") for line in shim(daemon, "ps", "--no-trunc").stdout.splitlines()]
    assert header == ["POD", "ID", "STATE", "GUEST", "MONITOR", "ADDRESS", "AGE"]
    assert [row[:6] for row in rows if row[1] == shown.pod.id] == [
        ["default/terminal-pod", shown.pod.id, "running", "solo5", "spt", shown.pod.address]
    ]
    assert shown.pod.id in shim(daemon, "ps", "-q").stdout.splitlines()
    found = {entry["id"]: entry for entry in json.loads(shim(daemon, "ps", "--json").stdout)}
    entry = found[shown.pod.id]
    assert entry["pod"] == {"namespace": "default", "name": "terminal-pod"} and entry["state"] == "ready"
    assert entry["unikernel"]["container"] == shown.guest and entry["unikernel"]["guest"] == "solo5"


@pytest.mark.parametrize("columns", WIDTHS)
def test_inspect_and_check(columns: int, shown: Shown, daemon: Daemon) -> None:
    page = read(daemon, "inspect", shown.guest[:10], columns=columns)
    assert max(map(len, page.lines)) <= columns and COLOUR.search(page.raw)
    for words in ("default/terminal-pod", shown.pod.address, "running", shown.pod.id):
        assert words in joined(page), page.text
    proof = read(daemon, "check", "default/terminal-pod", columns=columns)
    assert max(map(len, proof.lines)) <= columns and COLOUR.search(proof.raw)
    assert "nothingiswrong" in joined(proof) and joined(proof).count("proven") == 3, proof.text


@pytest.mark.parametrize("columns", WIDTHS)
def test_events(columns: int, shown: Shown, daemon: Daemon) -> None:
    screen = read(daemon, "events", "--pod", "terminal-pod", columns=columns)
    told = joined(screen)
    for words in ("sandbox-created", "plumbed", "restored", "endedwithstatus3", shown.pod.address):
        assert words in told, screen.text
    assert COLOUR.search(screen.raw)


def test_events_for_programs(shown: Shown, daemon: Daemon) -> None:
    lines = shim(daemon, "events", "--json", "--pod", shown.pod.id[:8]).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    of_guest = [event["what"] for event in events if event["container"] == shown.ended]
    assert of_guest == ["plumbed", "created", "started", "restored", "exited", "deleted"]
    assert {event["exit_status"] for event in events if event["what"] == "exited"} == {3}
    assert {event["pod"]["name"] for event in events} == {"terminal-pod"}
    assert json.loads(shim(daemon, "events", "--json").stdout.splitlines()[0])["what"] == "service-started"
    assert shim(daemon, "events", "--pod", "nobody").stdout == ""


def test_events_go_on_until_ctrl_c(shown: Shown, daemon: Daemon) -> None:
    with on_terminal(daemon, "events", "-f", "--pod", "terminal-pod", columns=200) as screen:
        screen.until("sandbox-created")
        container = shown.pod.run(images.BUSYBOX, command=["/bin/sh", "-c", "exit 7"])
        screen.until("ended with status 7")
        shown.pod.client.wait_exit(container)
        shown.pod.client.remove(container)
        screen.type(b"\x03")
        assert screen.finish() == 130
        assert "Traceback" not in screen.text and "Aborted" not in screen.text


def test_logs(shown: Shown, daemon: Daemon) -> None:
    piped = shim(daemon, "logs", "terminal-pod")
    assert piped.stdout.startswith("hello \x1b]0;evil\x07\x1b[31mred\x1b[0m\nsecond\n"), piped.stderr
    screen = read(daemon, "logs", "terminal-pod")
    assert screen.lines[:2] == ["hello \\x1b]0;evil\\x07red", "second"]  # nothing of it is obeyed but the colour
    assert b"\x1b[31mred" in screen.raw
    assert b"\x1b[31m" not in read(daemon, "logs", "terminal-pod", env={"NO_COLOR": "1"}).raw.replace(b"\\x1b", b"")
    assert shim(daemon, "logs", "terminal-pod", "--tail", "0").stdout == ""
    assert shim(daemon, "logs", "terminal-pod", "-c", "silent").stdout == "quiet\n"
    assert shim(daemon, "logs", "terminal-pod", "--since", "2030-01-01T00:00:00Z").stdout == ""
    stamped = shim(daemon, "logs", "terminal-pod", "-c", shown.silent[:9], "--timestamps", "--since", "1h").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+ quiet\n", stamped)
    line = json.loads(shim(daemon, "logs", "terminal-pod", "-c", "silent", "--json").stdout)
    assert line["stream"] == "stdout" and line["text"] == "quiet"
    refused = shim(daemon, "logs", "terminal-pod", "-c", "../silent")
    assert refused.returncode == 2 and "guest, shell, silent" in refused.stderr
    assert shim(daemon, "logs", "-f", "--previous", "terminal-pod").returncode == 2
    assert shim(daemon, "logs", "--since", "yesterday", "terminal-pod").returncode == 2


def test_logs_of_the_life_before(shown: Shown, daemon: Daemon) -> None:
    assert shim(daemon, "logs", "terminal-pod", "--previous").stdout == "earlier\n"
    refused = shim(daemon, "logs", "terminal-pod", "-c", "silent", "--previous")
    assert refused.returncode == 2 and "no earlier life" in refused.stderr


def _raw(screen: OnTerminal, before: list[Any]) -> bool:
    return screen.mode() != before


def _twice(screen: OnTerminal, words: str) -> bool:
    """As the terminal's echo, and from the guest."""
    return screen.text.count(words) == 2


def test_a_console(shown: Shown, daemon: Daemon) -> None:
    """What is typed reaches the guest, what it says is shown, also to a second person, and all is as it was then."""
    with (
        on_terminal(daemon, "console", "terminal-pod") as screen,
        on_terminal(daemon, "console", "terminal-pod") as two,
    ):
        before = screen.mode()
        for each in (screen, two):
            each.until(functools.partial(_raw, each, before))
        screen.type(b"from one\r")
        for each in (screen, two):
            each.until(functools.partial(_twice, each, "from one"))
        two.type(b"from two\r")
        screen.until(functools.partial(_twice, screen, "from two"))
        screen.type(b"not sent" + ESCAPE)
        assert screen.finish() == 0 and "left the console" in screen.text
        assert screen.mode() == before
        two.process.send_signal(signal.SIGTERM)
        assert two.finish() == 128 + signal.SIGTERM and two.mode() == before
    # kubectl's log has it too: nothing was taken away from containerd.
    eventually(lambda: "from two" in shim(daemon, "logs", "terminal-pod").stdout)


def test_the_serial_console_of_a_linux_guest(
    node: Node, containerd: Containerd, daemon: Daemon, clean: LeakCheck
) -> None:
    """What is typed goes down the serial line: its driver in the guest echoes it, though nobody reads it there."""
    containerd.load(images.linux())
    with containerd.cri.pod("unikernel") as pod:
        pod.run(images.LINUX, annotations=images.LINUX_ANNOTATIONS, tty=True)  # and no stdin: it needs none
        served(node, pod.address)
        with on_terminal(daemon, "console", pod.name) as screen:
            before = screen.mode()
            screen.until(functools.partial(_raw, screen, before))
            screen.type(b"anybody there?\r")
            screen.until("anybody there?")
            screen.type(ESCAPE)
            assert screen.finish() == 0
        assert "guest: ready" in shim(daemon, "logs", pod.name).stdout


def test_a_console_of_a_shell_has_the_windows_size(shown: Shown, daemon: Daemon) -> None:
    with on_terminal(daemon, "console", "terminal-pod", "-c", "shell", "--escape", "^X", columns=97) as screen:
        before = screen.mode()
        screen.until(functools.partial(_raw, screen, before))
        screen.type(b"busybox stty size\r")
        screen.until("200 97")
        screen.resize(71, 30)
        screen.until(lambda: _typed(screen, b"busybox stty size\r", "30 71"))
        screen.type(ESCAPE + b"\x18")
        assert screen.finish() == 0 and screen.mode() == before


def _typed(screen: OnTerminal, keys: bytes, wanted: str) -> bool:
    """Type until it is answered so: the new size travels beside what is typed."""
    if wanted not in screen.text:
        screen.type(keys)
    return wanted in screen.text


def test_a_console_ends_with_its_container(shown: Shown, daemon: Daemon) -> None:
    with (
        shown.pod.running(images.BUSYBOX, name="brief", command=["/bin/sh"], tty=True, stdin=True),
        on_terminal(daemon, "console", "terminal-pod", "-c", "brief") as screen,
    ):
        before = screen.mode()
        screen.until(functools.partial(_raw, screen, before))
        screen.type(b"exit 4\r")
        assert screen.finish() == 0 and screen.mode() == before
        assert "the container ended with status 4" in screen.text


def test_where_there_is_no_terminal_the_log_is_followed_and_it_is_said(shown: Shown, daemon: Daemon) -> None:
    with on_terminal(daemon, "console", "terminal-pod", "-c", "silent") as screen:
        screen.until("quiet")
        assert "silent has no terminal" in screen.text and "tty: true" in screen.text
        screen.type(b"\x03")
        assert screen.finish() == 130


def test_a_console_in_a_pipe_is_refused(shown: Shown, daemon: Daemon) -> None:
    refused = shim(daemon, "console", "terminal-pod")
    assert refused.returncode == 2 and "needs a terminal" in refused.stderr and "logs -f" in refused.stderr
    assert shim(daemon, "console", "terminal-pod", "--escape", "ctrl-q").returncode == 2
    with on_terminal(daemon, "console", "terminal-pod", "-c", "nobody") as screen:
        assert screen.finish() == 2 and "ithasshell,silent,guest" in joined(screen)


def test_names_are_completed_from_the_service(shown: Shown, daemon: Daemon) -> None:
    def completed(words: str) -> list[str]:
        env = {**os.environ, "_UNIKERNEL_SHIM_COMPLETE": "bash_complete", "COMP_WORDS": words,
               "COMP_CWORD": str(len(words.split(" ")) - 1), "UNIKERNEL_SHIM_CONFIG": str(daemon.config)}  # fmt: skip
        done = subprocess.run([str(paths.DAEMON)], env=env, capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.split()]

    for command in ("check", "inspect", "logs", "console"):
        assert completed(f"unikernel-shim {command} term") == ["terminal-pod"]
    assert completed("unikernel-shim events --pod term") == ["terminal-pod"]
    assert completed("unikernel-shim check nobody") == []
    assert set(completed("unikernel-shim co")) == {"config", "console", "completion"}


def test_without_containerd_whoever_started_it_has_its_output(
    shown: Shown, containerd: Containerd, daemon: Daemon, clean: LeakCheck, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("ctr") / "log"
    run = ("run", "-d", "--runtime", "io.containerd.unikernel.v2")
    containerd.ctr(*run, "--log-uri", f"file://{log}", images.BUSYBOX, "kept", "/bin/sh", "-c", "echo kept; sleep 600")
    containerd.ctr(*run, "--null-io", images.BUSYBOX, "unkept", "/bin/sleep", "600")
    try:
        eventually(lambda: shim(daemon, "logs", "kept").stdout == "kept\n")
        refused = shim(daemon, "logs", "kept", "--timestamps")
        assert refused.returncode == 2 and "does not say when" in refused.stderr
        refused = shim(daemon, "logs", "unkept")
        assert refused.returncode == 2 and "--log-uri" in refused.stderr and "crictl logs" in refused.stderr
    finally:
        for name in ("kept", "unkept"):
            containerd.ctr("task", "delete", "--force", name)
            containerd.ctr("container", "delete", name)


def test_bench_measures_and_leaves_nothing(shown: Shown, daemon: Daemon) -> None:
    def namespaces() -> list[str]:
        return [line for line in subprocess.check_output(["ip", "netns"], text=True).splitlines() if "uksbench" in line]

    before = namespaces()
    found = json.loads(shim(daemon, "bench", "--rounds", "1", "--json").stdout)
    rows = [row for table in found["figures"] for row in table["rows"]]
    names = ["List", "courier -v", "python3 -I -S -c pass", "plumb and undo", "ip -batch"]
    assert [row["name"] for row in rows] == names
    assert all(0 < row["median"] <= row["p99"] for row in rows)
    assert [row["ratio"] is None for row in rows] == [True, False, False, False, False]
    assert namespaces() == before
