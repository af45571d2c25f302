"""Cloud Hypervisor: what it is told and when, what its version decides, and its power button."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.config import CloudHypervisor as Settings
from shim.errors import InvalidRequest, NetworkFault, NodeFault, Unreachable, Unsupported
from shim.monitors import control
from shim.monitors.base import Booted, Disk, Machine
from shim.monitors.cloud_hypervisor import CloudHypervisor, description, told
from shim.process.spawn import Completed
from tests.unit.monitors import golden
from tests.unit.monitors.fake import FakeRun, program
from tests.unit.monitors.machines import LARGE, SMALL

_NEW = (52, 0)


def says(version: str) -> FakeRun:
    text = f"cloud-hypervisor {version}\nMigration Protocol Versions: 1\n".encode()
    return FakeRun(lambda argv: Completed(0, text, b""))


def monitor(directory: Path, version: str = "v52.0") -> CloudHypervisor:
    return CloudHypervisor(Settings(path=os.fspath(program(directory, "cloud-hypervisor"))), says(version))


@pytest.mark.parametrize(("name", "machine"), [("small", SMALL), ("large", LARGE)])
def test_what_it_is_told_is_as_before(name: str, machine: Machine) -> None:
    found = msgspec.json.format(told(machine, _NEW), indent=2)
    golden.check(f"cloud-hypervisor-{name}.json", found.decode() + "\n")


async def test_the_launch(tmp_path: Path) -> None:
    launch = await monitor(tmp_path).launch(LARGE)
    path = tmp_path / "cloud-hypervisor"
    assert launch.argv == (str(path), "--seccomp=true", "--api-socket=fd=5")
    assert launch.machine == told(LARGE, _NEW)
    assert launch.devices == (Path("/dev/kvm"),)
    assert path in launch.shares
    assert not launch.by_name
    assert not launch.in_pod
    assert launch.files == {}


@pytest.mark.parametrize(("version", "in_pod"), [("v51.2", True), ("v39.0", True), ("v52.0", False), ("60.1", False)])
async def test_older_ones_ask_for_the_taps_mtu_in_its_namespace(tmp_path: Path, version: str, in_pod: bool) -> None:
    bare = msgspec.structs.replace(SMALL, control=3)
    machine = msgspec.structs.replace(bare, nics=LARGE.nics)
    assert (await monitor(tmp_path, version).launch(machine)).in_pod is in_pod
    assert not (await monitor(tmp_path, version).launch(bare)).in_pod


@pytest.mark.parametrize("version", ["v38.0", "v0.15.0"])
async def test_one_that_is_too_old(tmp_path: Path, version: str) -> None:
    with pytest.raises(NodeFault, match=r"cloud-hypervisor \d+\.\d+ is too old: 39\.0 or newer"):
        await monitor(tmp_path, version).launch(SMALL)


def test_a_disk_is_never_taken_for_what_its_content_says() -> None:
    """A guest that writes another format's header would have its monitor open the files that it names."""
    written = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/d"), read_only=False),))
    assert description(written, _NEW)["disks"] == [{"path": "/d", "readonly": False, "image_type": "Raw"}]
    with pytest.raises(Unsupported, match="what its content says"):
        description(written, (50, 0))
    read = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/d")),))
    assert description(read, (50, 0))["disks"] == [{"path": "/d", "readonly": True}]


def test_a_disks_name_must_be_text() -> None:
    machine = Machine(kernel=SMALL.kernel, memory=64, disks=(Disk(path=Path("/a\udcff")),))
    with pytest.raises(InvalidRequest, match="no disk with such a name"):
        told(machine, _NEW)


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20), max_size=8))
def test_words_arrive_as_they_are(words: list[str]) -> None:
    machine = Machine(kernel=SMALL.kernel, memory=64, words=tuple(words))
    assert description(machine, _NEW)["payload"]["cmdline"] == " ".join(words)


def test_more_than_its_api_takes_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"has 5\d{4} bytes, and cloud-hypervisor takes 51200"):
        told(Machine(kernel=SMALL.kernel, memory=64, words=("x" * 51200,)), _NEW)


async def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    for machine, kind, words in (
        (Machine(kernel=SMALL.kernel, memory=32, cpus=255), InvalidRequest, "1 to 254 processors, not 255"),
        (Machine(kernel=SMALL.kernel, memory=32, kind="microvm"), Unsupported, "microvm"),
        (Machine(kernel=SMALL.kernel, memory=32, words=("naïve",)), InvalidRequest, "ASCII"),
    ):
        with pytest.raises(kind, match=words):
            await found.launch(machine)


async def test_a_monitor_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    found = monitor(tmp_path)
    assert found.powerdown == 20
    assert not await found.attaches_by_name()
    assert await found.open_vhost(1) == ()
    with pytest.raises(Unreachable):
        await found.power_down(tmp_path)


class Api:
    """The monitor's side of its control socket: remembers what it is asked, and answers as `answers` says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, list[tuple[int, int]]]] = []
        #: A machine's state once it is there, and the MACs of its NICs.
        self.state = ""
        self.macs: list[str] = []
        self.refusing: dict[str, bytes] = {}

    def answer(self, action: str, body: bytes, files: list[tuple[int, int]]) -> bytes:
        told: Any = msgspec.json.decode(body) if body else None
        self.asked.append((action, told, files))
        if action in self.refusing:
            return self.refusing[action]
        if action == "vm.info":
            if not self.state:
                return b'HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n["x"]'
            config = {"config": {"net": [{"mac": mac} for mac in self.macs] or None}, "state": self.state}
            said = msgspec.json.encode(config)
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
        if action == "vm.add-net":
            self.macs.append(told["mac"])
        self.state = "Running" if action == "vm.boot" else "Created"
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    @property
    def actions(self) -> list[str]:
        return [action for action, _, _ in self.asked]


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Api]:
    api = Api()
    loop = asyncio.get_running_loop()
    listening = socket.socket(fileno=control.listen(directory))
    listening.setblocking(False)

    async def serve() -> None:
        while True:
            connection, _ = await loop.sock_accept(listening)
            connection.setblocking(True)
            with connection:
                await asyncio.to_thread(converse, connection)

    def converse(connection: socket.socket) -> None:
        heard, taken = b"", list[int]()
        while b"\r\n\r\n" not in heard:
            part, some, _, _ = socket.recv_fds(connection, 1024, 4)
            heard, taken = heard + part, taken + list(some)
        head, _, body = heard.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(1 << 16)
        files = [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in taken]
        for number in taken:
            os.close(number)
        connection.sendall(api.answer(head.split()[1].decode().removeprefix("/api/v1/"), body, files))

    task = asyncio.ensure_future(serve())
    try:
        async with asyncio.timeout(10):
            yield api
    finally:
        task.cancel()
        await asyncio.wait([task])
        listening.close()


class Taps:
    """Files that stand for taps, by name; remembers which were opened, and whether they were closed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.opened: dict[str, int] = {}

    async def open(self, name: str) -> int:
        (self._directory / name).touch()
        self.opened[name] = os.open(self._directory / name, os.O_RDONLY)
        return self.opened[name]

    def identity(self, name: str) -> tuple[int, int]:
        found = (self._directory / name).stat()
        return found.st_dev, found.st_ino

    def all_closed(self) -> bool:
        return not any(Path(f"/proc/self/fd/{number}").exists() for number in self.opened.values())


async def test_it_is_told_its_machine_then_each_tap_then_boots(tmp_path: Path) -> None:
    found, taps = monitor(tmp_path), Taps(tmp_path)
    assert isinstance(found, Booted)
    async with serving(tmp_path / "own") as api:
        await found.boot(tmp_path / "own", told(LARGE, _NEW), taps.open)
    assert api.asked == [
        ("vm.info", None, []),
        ("vm.create", description(LARGE, _NEW), []),
        ("vm.add-net", {"mac": "02:00:00:00:00:01"}, [taps.identity("tap0")]),
        ("vm.add-net", {"mac": "02:00:00:00:00:02"}, [taps.identity("tap1")]),
        ("vm.boot", None, []),
    ]
    assert taps.all_closed()


async def test_without_nics_no_tap_is_opened(tmp_path: Path) -> None:
    found, taps = monitor(tmp_path), Taps(tmp_path)
    async with serving(tmp_path / "own") as api:
        await found.boot(tmp_path / "own", told(SMALL, _NEW), taps.open)
    assert api.actions == ["vm.info", "vm.create", "vm.boot"]
    assert not taps.opened


@pytest.mark.parametrize(
    ("state", "macs", "rest"),
    [
        ("Created", [], ["vm.add-net", "vm.add-net", "vm.boot"]),
        ("Created", ["02:00:00:00:00:01"], ["vm.add-net", "vm.boot"]),
        ("Created", ["02:00:00:00:00:01", "02:00:00:00:00:02"], ["vm.boot"]),
        ("Running", ["02:00:00:00:00:01", "02:00:00:00:00:02"], []),
        ("Shutdown", [], []),
    ],
)
async def test_what_a_former_daemon_has_told_is_not_told_again(
    tmp_path: Path, state: str, macs: list[str], rest: list[str]
) -> None:
    found, taps = monitor(tmp_path), Taps(tmp_path)
    async with serving(tmp_path / "own") as api:
        api.state, api.macs = state, macs
        await found.boot(tmp_path / "own", told(LARGE, _NEW), taps.open)
    assert api.actions == ["vm.info", *rest]
    assert len(taps.opened) == rest.count("vm.add-net")


@pytest.mark.parametrize("action", ["vm.create", "vm.add-net", "vm.boot"])
async def test_its_refusal_is_the_error(tmp_path: Path, action: str) -> None:
    found, taps = monitor(tmp_path), Taps(tmp_path)
    async with serving(tmp_path / "own") as api:
        api.refusing[action] = b'HTTP/1.1 500 x\r\nContent-Length: 17\r\n\r\n["no such thing"]'
        with pytest.raises(NodeFault, match=rf"{action}: the monitor refuses with 500: \[\"no such thing\"\]"):
            await found.boot(tmp_path / "own", told(LARGE, _NEW), taps.open)
    assert api.actions[-1] == action, "nothing follows"
    assert taps.all_closed()


@pytest.mark.parametrize("said", [b"[]", b'{"state": 1}', b"{", b"[" * 9000])
async def test_an_answer_that_makes_no_sense(tmp_path: Path, said: bytes) -> None:
    async with serving(tmp_path / "own") as api:
        api.refusing["vm.info"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)
        with pytest.raises(NodeFault, match="makes no sense"):
            await monitor(tmp_path).boot(tmp_path / "own", told(SMALL, _NEW), Taps(tmp_path).open)


async def test_a_monitor_that_hangs_up(tmp_path: Path) -> None:
    async with serving(tmp_path / "own") as api:
        api.refusing["vm.create"] = b""
        with pytest.raises(Unreachable, match="hung up"):
            await monitor(tmp_path).boot(tmp_path / "own", told(SMALL, _NEW), Taps(tmp_path).open)


async def test_a_tap_that_is_not_there(tmp_path: Path) -> None:
    async def gone(name: str) -> int:
        raise NetworkFault("the guest's tap cannot be opened", subject=name)

    async with serving(tmp_path / "own") as api:
        with pytest.raises(NetworkFault, match="tap0"):
            await monitor(tmp_path).boot(tmp_path / "own", told(LARGE, _NEW), gone)
    assert "vm.boot" not in api.actions
