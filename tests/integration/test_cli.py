"""`unikernel-shim run` and `plan`: the same machinery with no containerd, typed as a user would."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import acceleration, guest, layouts, paths
from tests.integration.foreground import eventually
from tests.integration.layouts import Site

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(params=["bridged", "routed"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A pod beside another in each layout, with no containerd."""
    with getattr(layouts, request.param)() as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run directory of the test's own."""
    path = tmp_path / "config.toml"
    path.write_text(f'run_dir = "{tmp_path}/run"\n[storage]\ndirectory = "{tmp_path}/storage"\n')
    acceleration.lend(tmp_path / "run")
    return path


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The kernel and an initrd."""
    initrd = tmp_path_factory.mktemp("guest") / "initrd"
    initrd.write_bytes(guest.initrd())
    return guest.kernel(), initrd


def command(config: Path, *words: str | Path) -> list[str]:
    return [str(paths.BIN / "python3"), "-m", "shim.cli.main", "--config", str(config), *map(str, words)]


def shim(config: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, *words), capture_output=True, text=True, timeout=60, check=False, cwd=paths.ROOT
    )


def test_plan_prints_and_touches_nothing(site: Site, config: Path) -> None:
    before = layouts.dump(site.pod)
    text = shim(config, "plan", "--netns", site.pod)
    assert text.returncode == 0, text.stderr
    assert "create tap tap0" in text.stdout and "undone by" in text.stdout
    assert f"MAC      {site.mac}" in text.stdout and "address  " in text.stdout
    plan = json.loads(shim(config, "plan", "--netns", str(site.path), "--dataplane", "bridge", "--json").stdout)
    assert plan["guest"][0]["mac"] == site.mac
    assert plan["guest"][0]["address"].split("/")[0] == site.address
    assert all("operation" in entry and "inverses" in entry for entry in plan["operations"])
    assert layouts.dump(site.pod) == before


def test_plan_of_chosen_interfaces(config: Path) -> None:
    with layouts.ALL["multus"]() as site:
        words = ("plan", "--netns", site.pod, "--dataplane", "mirror", "--interface", "net1", "--interface", "eth0")
        plan = json.loads(shim(config, *words, "--json").stdout)
        assert [nic["name"] for nic in plan["guest"]] == ["net1", "eth0"]
        assert "interface net2 is left alone" in plan["notes"]
        assert not any("bridge" in entry["operation"] for entry in plan["operations"])


@pytest.mark.parametrize(
    ("site", "signum"), [("bridged", signal.SIGINT), ("routed", signal.SIGTERM)], indirect=["site"]
)
def test_run_serves_and_ctrl_c_restores(
    signum: int, site: Site, config: Path, linux: tuple[Path, Path], tmp_path: Path
) -> None:
    kernel, initrd = linux
    before = layouts.dump(site.pod)
    console = tmp_path / "console"
    with console.open("wb") as out:
        process = subprocess.Popen(
            command(config, "run", "--netns", site.pod, "--memory", "128", "--initrd", initrd, kernel),
            cwd=paths.ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        for _ in range(200):
            if layouts.pings(site.node, site.address, count=1, wait=0.2) and "guest: ready" in console.read_text():
                break
            assert process.poll() is None, console.read_text()
            time.sleep(0.05)
        assert layouts.pings(site.peer, site.address), console.read_text()
    finally:
        process.send_signal(signum)
        code = process.wait(20)
    assert code == 0
    assert "guest: power button" in console.read_text(), "the guest is asked"
    assert layouts.dump(site.pod) == before
    assert not (tmp_path / "run" / "foreground").exists()


def test_a_run_that_was_killed_is_cleared_away_by_the_next(
    site: Site, config: Path, linux: tuple[Path, Path], tmp_path: Path
) -> None:
    """The namespace carries plumbing of a run that cannot take it back any more; its guest still lives."""
    kernel, initrd = linux
    before = layouts.dump(site.pod)
    words = ("run", "--netns", site.pod, "--initrd", initrd, "--cmdline", f"{guest.WORDS} harness.poweroff=1", kernel)
    process = subprocess.Popen(
        command(config, "run", "--netns", site.pod, "--initrd", initrd, kernel),
        cwd=paths.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            if "unikernel-shim:" in layouts.ip("link", "show", "eth0", namespace=site.pod):
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    left = list((tmp_path / "run" / "foreground").iterdir())
    assert [directory.name for directory in left] == [str(process.pid)]
    done = shim(config, *words)
    assert done.returncode == 0, done.stderr
    assert "guest: ready" in done.stdout
    assert layouts.dump(site.pod) == before
    assert not (tmp_path / "run" / "foreground").exists()


def test_run_gives_the_guests_own_exit(config: Path, linux: tuple[Path, Path]) -> None:
    kernel, initrd = linux
    done = shim(config, "run", "--initrd", initrd, "--cmdline", f"{guest.WORDS} harness.poweroff=0", kernel)
    assert done.returncode == 0, done.stderr
    assert "guest: up" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "/no/such/kernel"], 2, "no such file"),
        (["run", "--netns", "no-such-netns", "KERNEL"], 1, "no-such-netns"),
        (["run", "--monitor", "spt", "KERNEL"], 2, "io.unikernel.monitor"),
        (["run", "--memory", "x", "KERNEL"], 2, "io.unikernel.memory"),
        (["run", "/etc/hostname"], 1, "no kernel"),
        (["run", "--nics", "eth0=", "KERNEL"], 2, "io.unikernel.nics"),
        (["run", "--dataplane", "tc", "KERNEL"], 2, "'tc' is not one of 'auto', 'bridge', 'mirror', 'macvtap'"),
        (["run", "--nics", "eth0", "KERNEL"], 2, "no interface 'eth0'"),
        (["plan", "--netns", "no-such-netns"], 1, "no-such-netns"),
        (["plan", "--netns", "/proc/self/ns/net"], 1, "host's own"),
        (["plan"], 2, "--netns"),
        (["--config", "/no/such/config", "config"], 2, "no such configuration file"),
    ],
)
def test_a_users_mistake_is_one_line_and_an_exit_code(
    words: list[str], code: int, said: str, config: Path, linux: tuple[Path, Path]
) -> None:
    done = shim(config, *[str(linux[0]) if word == "KERNEL" else word for word in words])
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_config_prints_what_is_in_force(config: Path) -> None:
    import tomllib

    done = shim(config, "config")
    assert tomllib.loads(done.stdout)["run_dir"] == f"{config.parent}/run"
    assert tomllib.loads(done.stdout)["monitors"]["qemu"]["accel"] == "auto"


@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_a_solo5_guest_where_there_is_one(tender: str, config: Path) -> None:
    """Needs `solo5-TENDER` on PATH and Solo5's own `test_hello.TENDER` beside it (no registry has either)."""
    found = shutil.which(f"solo5-{tender}")
    kernel = Path(found).parent / f"test_hello.{tender}" if found else None
    if kernel is None or not kernel.exists():
        pytest.skip(f"solo5-{tender} with test_hello.{tender} beside it is not on PATH: not run")
    done = shim(config, "run", kernel, "Hello_Solo5")
    assert done.returncode == 0, done.stderr
    assert "Command line is: 'Hello_Solo5'" in done.stdout


@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_a_solo5_guest_on_the_pods_network(tender: str, config: Path) -> None:
    """Solo5's `test_net` answers ping at 10.0.0.2, with the MAC it was given."""
    found = shutil.which(f"solo5-{tender}")
    kernel = Path(found).parent / f"test_net.{tender}" if found else None
    if kernel is None or not kernel.exists():
        pytest.skip(f"solo5-{tender} with test_net.{tender} beside it is not on PATH: not run")
    names = layouts.namespaces("solo5node", "solo5pod")
    with names as (node, pod):
        layouts.ip("link", "add", "h0", "type", "veth", "peer", "name", "eth0", "netns", pod, namespace=node)
        layouts.ip("address", "add", "10.0.0.1/24", "dev", "h0", namespace=node)
        layouts.ip("link", "set", "h0", "up", namespace=node)
        layouts.ip("address", "add", "10.0.0.2/24", "dev", "eth0", namespace=pod)
        layouts.ip("link", "set", "eth0", "up", namespace=pod)
        layouts.ip("route", "add", "default", "via", "10.0.0.1", namespace=pod)
        assert layouts.pings(node, "10.0.0.2")
        process = subprocess.Popen(
            command(config, "run", "--netns", pod, kernel, "verbose"),
            cwd=paths.ROOT,
            stdout=subprocess.DEVNULL,
        )
        try:
            answered = False
            for _ in range(50):
                assert process.poll() is None
                answered = "tap0" in layouts.ip("-brief", "link", namespace=pod) and layouts.pings(node, "10.0.0.2")
                if answered:
                    break
                time.sleep(0.1)
            assert answered, "the guest does not answer with the MAC the node knows"
        finally:
            process.terminate()
            # spt has no handler and dies of the signal; hvt says "Exiting on signal 15".
            assert process.wait(10) == (143 if tender == "spt" else 1)
        assert layouts.pings(node, "10.0.0.2"), "eth0 is not back"


@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_a_solo5_guest_with_two_nics(tender: str, config: Path) -> None:
    """Solo5's `test_net_2if` answers ping at 10.0.0.2 on its device service0 and at 10.1.0.2 on service1, which here
    are the pod's second and first interface."""
    found = shutil.which(f"solo5-{tender}")
    kernel = Path(found).parent / f"test_net_2if.{tender}" if found else None
    if kernel is None or not kernel.exists():
        pytest.skip(f"solo5-{tender} with test_net_2if.{tender} beside it is not on PATH: not run")
    with layouts.namespaces("solo5node", "solo5pod") as (node, pod):
        for number, (outside, inside) in enumerate((("h1", "eth0"), ("h0", "net1"))):
            network = f"10.{1 - number}.0"
            layouts.ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", pod, namespace=node)
            layouts.ip("address", "add", f"{network}.1/24", "dev", outside, namespace=node)
            layouts.ip("link", "set", outside, "up", namespace=node)
            layouts.ip("address", "add", f"{network}.2/24", "dev", inside, namespace=pod)
            layouts.ip("link", "set", inside, "up", namespace=pod)
        process = subprocess.Popen(
            command(config, "run", "--netns", pod, "--nics", "service0=net1,service1=eth0", kernel, "verbose"),
            cwd=paths.ROOT,
            stdout=subprocess.DEVNULL,
        )
        try:
            assert eventually(lambda: "tap1" in layouts.ip("-brief", "link", namespace=pod))
            for address in ("10.0.0.2", "10.1.0.2"):
                assert eventually(functools.partial(layouts.pings, node, address, count=1)), address
        finally:
            process.terminate()
            process.wait(10)
        assert layouts.pings(node, "10.0.0.2") and layouts.pings(node, "10.1.0.2"), "the interfaces are not back"
