"""`image build` and `image inspect`: what the one packs the other reads; what is refused leaves nothing."""

from __future__ import annotations

import base64
import errno
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.cli import image_build
from shim.cli.main import main
from shim.errors import ImageFault
from shim.oci.archive import stored, writer
from shim.oci.archive.documents import ARCHITECTURES
from shim.oci.archive.files import Archive
from shim.oci.archive.tree import Symlink
from tests.unit.oci import elf
from tests.unit.oci.archive.making import DEVICE, DIRECTORY, FIFO, HARD, LINK, Content, Layout, saved, tar

_ARM = os.uname().machine == "aarch64"
_HERE, _ELSEWHERE = (elf.AARCH64, elf.X86_64) if _ARM else (elf.X86_64, elf.AARCH64)
SOLO5 = elf.solo5(nets=[b"service"], machine=_HERE)
LINUX = elf.image([elf.pvh()], _HERE)
PROGRAM = elf.program(_HERE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of kernels and other files, in which the command is run; `tmp` in it is for temporary files."""
    files = {"solo5": SOLO5, "linux": LINUX, "program": PROGRAM, "initrd": b"070701", "disk": bytes(4096)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIKERNEL_SHIM_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return tmp_path


def ask(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["image", *map(str, arguments)], input=stdin, catch_exceptions=False)


def build(*arguments: str | Path, kernel: str = "solo5") -> Result:
    return ask("build", "--kernel", kernel, "--output", "a.tar", *arguments)


def built(*arguments: str | Path, kernel: str = "solo5") -> dict[str, Any]:
    done = build("--json", *arguments, kernel=kernel)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def inspected(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    done = ask("inspect", "--json", *arguments)
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def nodes(path: Path) -> dict[str, Any]:
    """What is at the top of an archive's image."""
    files = Archive(path.open("rb"), path.name)
    try:
        return stored.layers_of(files, stored.find(files)).top.children
    finally:
        files.close()


def members(path: Path) -> dict[str, bytes]:
    """The files of an archive, by Python's own reader."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def refused(done: Result, *words: str, code: int, left: frozenset[str] = frozenset()) -> None:
    """Exit code, words, and nothing in the directory that was not there."""
    assert done.exit_code == code, done.output
    for word in words:
        assert word in done.stderr
    assert done.stderr.count("\n") == 1, "one line, no stack trace"
    known = {"solo5", "linux", "program", "initrd", "disk", "tmp", "config.toml", "root", "bad"}
    assert {path.name for path in Path().iterdir()} <= known | left
    assert not list(Path("tmp").iterdir())


# What is built


def test_a_solo5_kernel(here: Path) -> None:
    made = built("--name", "localhost/x:1", "--arg", "--ipv4=a b", "--env", "A=b=c", "--memory", "64Mi")
    assert made["guest"] == "solo5" and made["platform"] == f"linux/{ARCHITECTURES[os.uname().machine]}"
    found = inspected("a.tar")
    assert found["verdict"] == "unikernel" and found["name"] == "localhost/x:1" and found["digest"] == made["digest"]
    facts = {name: fact["value"] for name, fact in found["facts"].items()}
    assert facts == {
        "kernel": "/unikernel/kernel",
        "guest": "solo5",
        "monitor": "spt",
        "memory": "64 MiB",
        "network": "service",
        "root": "none of the image's files",
        "command line": "--ipv4=a b",
    }
    assert "/unikernel.json" in found["facts"]["kernel"]["why"] and "ELF notes" in found["facts"]["guest"]["why"]
    assert found["notes"] == [], "what the labels say is in the description too"


def test_a_linux_kernel_with_all_it_can_have(here: Path) -> None:
    (here / "root" / "etc").mkdir(parents=True)
    (here / "root" / "etc" / "motd").write_text("hello")
    built(
        *("--root", "root", "--initrd", "initrd", "--cmdline", "loglevel=3", "--guest", "linux", "--monitor", "qemu"),
        *("--annotation", "io.unikernel.network=none", "--annotation", "org.example=1", "--env", "A=b"),
        kernel="linux",
    )
    facts = inspected("a.tar")["facts"]
    assert facts["initrd"]["value"] == "/unikernel/initrd" and facts["network"]["value"] == "none"
    assert "A=b" in facts["command line"]["value"] and "loglevel=3" in facts["command line"]["value"]
    assert set(nodes(here / "a.tar")) == {"etc", "unikernel", "unikernel.json"}


def test_a_root_that_is_made_of_the_images_files(here: Path) -> None:
    (here / "root" / "bin").mkdir(parents=True)
    (here / "root" / "bin" / "serve").touch(0o755)
    built("--root", "root", "--arg", "/bin/serve", "--arg", "x", kernel="linux")
    facts = inspected("a.tar")["facts"]
    assert facts["root"]["value"] == "the image's files as squashfs, read-only, at /"
    assert "root=/dev/vda ro rootfstype=squashfs" in facts["command line"]["value"]
    assert "init=/bin/serve -- x" in facts["command line"]["value"]
    words = ("--annotation", "io.unikernel.root=ext4")
    told = json.loads(ask("inspect", "--json", *words, "a.tar").output)["facts"]["root"]
    assert told == {
        "value": "the image's files as ext4, a copy of the pod's own, at /",
        "why": "the pod's annotation io.unikernel.root says so",
    }
    refused = ask("inspect", "--annotation", "io.unikernel.root=vfat", "a.tar")
    assert refused.exit_code == 1 and "vfat" in refused.output


def test_the_table_for_people(here: Path) -> None:
    built("--name", "localhost/x:1")
    lines = ask("inspect", "a.tar").stdout.splitlines()
    assert lines[0].startswith("localhost/x:1, linux/") and "runs as a unikernel" in lines
    assert any(line.split()[:2] == ["monitor", "spt"] for line in lines)


def test_the_same_files_give_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, order in (("one", ("a", "b")), ("two", ("b", "a"))):
        root = here / "root" / name
        root.mkdir(parents=True)
        for file in order:
            (root / file).write_text(file)
            os.utime(root / file, (len(name), 12345))
    words = ("--annotation", "io.unikernel.network=none", "--name", "x:1")
    for name in ("one", "two"):
        ask("build", "--kernel", "solo5", "--root", here / "root" / name, *words, "-o", f"{name}.tar")
    one = (here / "one.tar").read_bytes()
    assert one == (here / "two.tar").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    ask("build", "--kernel", "solo5", "--root", here / "root" / "one", *words, "-o", "later.tar")
    assert (here / "later.tar").read_bytes() != one
    assert (here / "later.tar").read_bytes().count(b"1970-01-02T00:00:00Z") == 1


def test_links_modes_and_names_stay_as_they_are(here: Path) -> None:
    root = here / "root"
    root.mkdir()
    (root / "file").write_text("x")
    (root / "file").chmod(0o4750)
    (root / "again").hardlink_to(root / "file")
    for name, target in {"out": "../../../etc/passwd", "absolute": "/etc/passwd", "dangling": "none"}.items():
        (root / name).symlink_to(target)
    (root / os.fsdecode(b"latin-\xe9")).write_text("y")
    (root / ("n" * 200)).write_text("z")
    built("--root", "root")
    found = nodes(here / "a.tar")
    assert found["out"] == Symlink("../../../etc/passwd") and found["absolute"] == Symlink("/etc/passwd")
    assert found["again"] == found["file"] and os.fsdecode(b"latin-\xe9") in found and "n" * 200 in found
    # Another reader than ours.
    layer = next(name for name in members(here / "a.tar") if members(here / "a.tar")[name].startswith(b"\x1f\x8b"))
    listed = subprocess.run(
        ["tar", "-tvzf", "-", "--numeric-owner"], input=members(here / "a.tar")[layer], capture_output=True, check=True
    ).stdout.decode(errors="replace")
    assert "-rwsr-x--- 0/0" in listed and "1970-01-01" in listed and "file link to again" in listed


def test_a_docker_without_layouts_finds_the_same_image(here: Path) -> None:
    made = built("--name", "localhost/x:1")
    files = members(here / "a.tar")
    del files["index.json"], files["oci-layout"]
    (here / "bad").write_bytes(tar(list(files.items())))
    found = inspected("bad")
    assert (found["form"], found["name"], found["verdict"]) == ("docker save", "localhost/x:1", "unikernel")
    assert found["platform"] == made["platform"]


def test_an_image_for_another_machine(here: Path) -> None:
    (here / "other").write_bytes(elf.solo5(machine=_ELSEWHERE))
    made = built(kernel="other")
    assert made["platform"] == f"linux/{'amd64' if _ARM else 'arm64'}"
    found = inspected("a.tar", code=1)
    assert found["verdict"] == "refused" and "this node is" in found["refusal"]["message"]


def test_it_is_written_to_the_standard_output(here: Path) -> None:
    done = CliRunner().invoke(main, ["image", "build", "--kernel", "solo5", "--output", "-"])
    assert done.exit_code == 0 and not (here / "-").exists()
    again = ask("inspect", "--json", "-", stdin=done.stdout_bytes)
    assert again.exit_code == 0 and json.loads(again.stdout)["verdict"] == "unikernel"


def test_for_urunc_as_well(here: Path) -> None:
    built("--urunc", "--initrd", "initrd", "--arg", "/init", "--arg", "a", kernel="linux")
    files = Archive((here / "a.tar").open("rb"), "x")
    image = stored.find(files)
    files.close()
    process = image.config.config
    assert process is not None and process.entrypoint is None and process.cmd == ["/init", "a"]
    values = {
        key: base64.b64decode(value).decode()
        for key, value in image.annotations.items()
        if key.startswith("com.urunc.unikernel.")
    }
    assert values == {
        "com.urunc.unikernel.unikernelType": "linux",
        "com.urunc.unikernel.hypervisor": "qemu",
        "com.urunc.unikernel.binary": "/unikernel/kernel",
        "com.urunc.unikernel.cmdline": "/init a",
        "com.urunc.unikernel.initrd": "/unikernel/initrd",
    }
    assert "urunc.json" in nodes(here / "a.tar")


def test_disks(here: Path) -> None:
    (here / "k").write_bytes(elf.solo5(blocks=[b"storage", b"logs"], machine=_HERE))
    (here / "more").write_bytes(bytes(512))
    built("--block", "storage=disk:ro", "--block", "logs=more", kernel="k")
    facts = inspected("a.tar")["facts"]
    assert facts["disk storage"]["value"] == "/unikernel/disk-storage.img, read-only"
    assert facts["disk logs"]["value"] == "/unikernel/disk-logs.img"
    (here / "a.tar").unlink()
    built("--block", "disk:/data", "--block", "more", kernel="linux")
    facts = inspected("a.tar")["facts"]
    assert facts["disk 0"]["value"] == "/unikernel/disk-0.img, mounted at /data"
    assert facts["disk 1"]["value"] == "/unikernel/disk-1.img"


def test_a_kernel_that_is_told_by_its_name(here: Path) -> None:
    (here / "server.nabla").write_bytes(SOLO5)
    built(kernel="server.nabla")
    facts = inspected("a.tar")["facts"]
    assert (facts["kernel"]["value"], facts["guest"]["value"]) == ("/unikernel/kernel.nabla", "rumprun")


def test_a_kernel_whose_headers_say_nothing(here: Path) -> None:
    (here / "kernel.img").write_bytes(b"\xeb\xfe" * 300)
    built("--guest", "hermit", "--initrd", "program", kernel="kernel.img")
    facts = inspected("a.tar")["facts"]
    assert (facts["guest"]["value"], facts["initrd"]["value"]) == ("hermit", "/unikernel/initrd")


def test_an_image_made_for_urunc(here: Path) -> None:
    description = json.dumps(
        {
            f"com.urunc.unikernel.{name}": base64.b64encode(value).decode()
            for name, value in {"binary": b"/k", "unikernelType": b"mirage", "hypervisor": b"spt"}.items()
        }
    )
    found = inspected(archived([[("bin/k", SOLO5), ("k", (LINK, "bin/k")), ("urunc.json", description.encode())]], {}))
    assert found["facts"]["kernel"] == {
        "value": "/bin/k",
        "why": "urunc.json: com.urunc.unikernel.binary in the image says so",
    }
    assert found["facts"]["guest"]["value"] == "mirage"


def test_a_disk_of_the_pods(here: Path) -> None:
    path = archived([[("k", LINUX)]], {"Entrypoint": ["/k"]})
    facts = inspected("--annotation", "io.unikernel.block=/dev/xvda:/data:ro", path)["facts"]
    assert facts["disk 0"]["value"] == "/dev/xvda, mounted at /data, read-only"
    assert facts["disk 0"]["why"].endswith("and the pod must have the device")


_NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) < 200
)


@given(
    files=st.dictionaries(_NAME, st.binary(max_size=2000), max_size=6),
    arguments=st.lists(st.text("abc =-/.é", min_size=1, max_size=9), max_size=4),
    memory=st.integers(1, 4096),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_what_is_packed_is_read(here: Path, files: dict[str, bytes], arguments: list[str], memory: int) -> None:
    root = Path(tempfile.mkdtemp(dir=here / "root" if (here / "root").is_dir() else here))
    for name, data in files.items():
        if name not in ("unikernel", "unikernel.json"):
            (root / name).write_bytes(data)
    words = [word for argument in arguments for word in ("--arg", argument)]
    built("--force", "--root", root, "--memory", str(memory), *words)
    found = inspected("a.tar")
    assert found["facts"]["memory"]["value"] == f"{memory} MiB"
    assert found["facts"]["command line"]["value"] == (" ".join(arguments) or "empty")
    assert found["files"] == len(list(root.iterdir())) + 2
    read = {name: node for name, node in nodes(here / "a.tar").items() if name not in ("unikernel", "unikernel.json")}
    assert {name: node.size for name, node in read.items()} == {
        path.name: path.stat().st_size for path in root.iterdir()
    }


def test_a_root_is_never_held_in_memory(here: Path) -> None:
    (here / "root").mkdir()
    with (here / "root" / "big").open("wb") as file:
        file.truncate(128 << 20)
    words = ["image", "build", "--kernel", here / "solo5", "--root", here / "root", "--output", here / "a.tar"]
    # Not ru_maxrss, which begins with what this process has (getrusage(2)): VmHWM is the program's own (proc(5)).
    done = subprocess.run(
        [sys.executable, "-c", _TELLS_ITS_PEAK, *map(str, words)],
        cwd=Path(image_build.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stderr) < 128 << 10


_TELLS_ITS_PEAK = """
import atexit, pathlib, re, sys
from shim.cli.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1], file=sys.stderr))
main()
"""


# What is not built


@pytest.mark.parametrize(
    ("kernel", "words", "code"),
    [
        ("none", ("none: there is no such file",), 2),
        ("tmp", ("tmp: there is no such file",), 2),
        (
            "program",
            (
                "program: the file is no kernel that is known here",
                "--guest",
            ),
            1,
        ),
        ("bad", ("truncated or broken ELF",), 1),
    ],
)
def test_what_is_no_kernel(here: Path, kernel: str, words: tuple[str, ...], code: int) -> None:
    (here / "bad").write_bytes(SOLO5[:-8])
    refused(build(kernel=kernel), *words, code=code)


def test_a_kernel_of_a_later_abi_or_of_a_machine_without_images(here: Path) -> None:
    (here / "bad").write_bytes(elf.image([elf.manifest(), elf.abi(version=3)], _HERE, solo5=True))
    refused(build(kernel="bad"), "bad: the kernel speaks version 3 of Solo5's ABI", code=1)
    (here / "bad").write_bytes(elf.solo5(machine=243))  # EM_RISCV (elf.h)
    refused(build(kernel="bad"), "bad: the kernel is built for", "known are x86_64, aarch64", code=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--annotation", "io.unikernel.kernal=/x"), ("io.unikernel.kernal: unknown annotation", "did you mean")),
        (("--annotation", "io.unikernel.kernel=/x"), ("io.unikernel.kernel: an option says otherwise",)),
        (("--annotation", "io.unikernel.memory"), ("is not NAME=VALUE",)),
        (("--env", "A"), ("--env: 'A' is not NAME=VALUE",)),
        (("--memory", "much"), ("io.unikernel.memory: 'much' is not an amount of memory",)),
        (("--name", "no good"), ("no image can have this name",)),
        (("--root", "none"), ("none: there is no such directory",)),
        (("--root", "solo5"), ("solo5: there is no such directory",)),
        (("--initrd", "none"), ("none: there is no such file",)),
        (("--block", "storage=none"), ("none: there is no such file",)),
        (("--block", "a=disk", "--block", "a=disk"), ("two files for one device",)),
        (("--urunc", "--guest", "templeos", "--arg", "x"), ("io.unikernel.guest: 'templeos' is not a guest",)),
        (("--monitor", "bochs"), ("io.unikernel.monitor: 'bochs' is not a monitor",)),
        (("--urunc",), ("--urunc: urunc must know which family",)),
        (("--output", "tmp"), ("tmp: it is a directory",)),
    ],
)
def test_options_that_make_no_sense(here: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(build(*options), *words, code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--initrd", "initrd"), ("a pod of this image would be refused", "io.unikernel.initrd")),
        (("--monitor", "qemu"), ("a pod of this image would be refused", "io.unikernel.monitor")),
        (("--guest", "linux"), ("a pod of this image would be refused", "io.unikernel.guest")),
    ],
)
def test_an_image_that_a_pod_would_be_refused(here: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(build(*options), *words, code=1)


def test_an_output_that_is_there_or_cannot_be(here: Path) -> None:
    (here / "a.tar").write_text("mine")
    refused(build(), "a.tar: the file is there already; say --force", code=2, left=frozenset(("a.tar",)))
    assert (here / "a.tar").read_text() == "mine"
    assert build("--force").exit_code == 0 and inspected("a.tar")["verdict"] == "unikernel"
    (here / "a.tar").unlink()
    refused(ask("build", "--kernel", "solo5", "-o", "none/a.tar"), "none/a.tar: the archive cannot be written", code=1)


def test_an_archive_is_not_for_a_terminal(here: Path) -> None:
    leader, follower = os.openpty()
    command = [
        sys.executable,
        "-m",
        "shim.cli.main",
        "image",
        "build",
        "--kernel",
        str(here / "solo5"),
        "--output",
        "-",
    ]
    checkout = Path(image_build.__file__).parents[2]
    done = subprocess.run(command, stdout=follower, stderr=subprocess.PIPE, cwd=checkout, text=True, check=False)
    os.close(follower)
    os.close(leader)
    assert done.returncode == 2 and "an archive is not for a terminal" in done.stderr


def test_a_root_with_what_no_image_carries(here: Path) -> None:
    root = here / "root"
    (root / "run").mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("root/run/s")
    refused(build("--root", "root"), "run/s: the root directory holds a socket", code=2)
    listener.close()
    (root / "run" / "s").unlink()
    os.mkfifo(root / "run" / "f")
    refused(build("--root", "root"), "run/f: the root directory holds a FIFO", code=2)
    (root / "run" / "f").unlink()
    (root / ".wh.x").touch()
    refused(build("--root", "root"), ".wh.x: to whoever unpacks the image, this name hides another file", code=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_root_with_a_device(here: Path) -> None:
    (here / "root").mkdir()
    os.mknod(here / "root" / "null", 0o666 | 0o020000, os.makedev(1, 3))
    refused(build("--root", "root"), "null: the root directory holds a device", code=2)


@pytest.mark.parametrize("path", ["unikernel/kernel", "unikernel.json", "unikernel"])
def test_two_files_at_one_path(here: Path, path: str) -> None:
    (here / "root" / path).parent.mkdir(parents=True)
    (here / "root" / path).write_text("x")
    refused(build("--root", "root"), f"/{path}", code=2)


def test_a_link_where_the_kernel_goes(here: Path) -> None:
    (here / "root").mkdir()
    (here / "root" / "unikernel").symlink_to("/etc")
    refused(build("--root", "root"), "has a file or link at /unikernel", code=2)


def test_a_file_that_may_not_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "root").mkdir()
    (here / "root" / "secret").touch()
    opened = Path.open

    def denied(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == "secret":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", denied)
    refused(build("--root", "root"), "root/secret: the file cannot be read: Permission denied", code=1)


@pytest.mark.parametrize("after", [0, 100, 12_000])
def test_a_full_disk_leaves_no_half_archive(here: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    class Full:
        """A file on a disk with so much room."""

        def __init__(self, file: BinaryIO) -> None:
            self._file, self._room = file, after

        def write(self, data: bytes) -> int:
            self._room -= len(data)
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    def write(sink: BinaryIO, *more: Any) -> Any:
        return writer.write(Full(sink), *more)  # type: ignore[arg-type]

    (here / "root").mkdir()
    (here / "root" / "noise").write_bytes(os.urandom(50_000))
    monkeypatch.setattr(image_build, "write", write)
    refused(build("--root", "root"), "a.tar: the archive cannot be written: No space left on device", code=1)


def test_a_file_that_shrinks_while_it_is_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "root").mkdir()
    (here / "root" / "log").write_bytes(bytes(200_000))
    stat = os.fstat

    def longer(descriptor: int) -> os.stat_result:
        found = stat(descriptor)
        return os.stat_result((*found[:6], found.st_size + 10, *found[7:])) if found.st_size == 200_000 else found

    monkeypatch.setattr(os, "fstat", longer)
    refused(build("--root", "root"), "root/log: the file became shorter while it was read", code=1)


@pytest.mark.parametrize("moment", ["yesterday", "-1", "99999999999"])
def test_a_moment_that_is_none(here: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", moment)
    refused(build(), f"SOURCE_DATE_EPOCH: '{moment}' is not a time", code=2)


# What is inspected


def archived(layers: list[list[tuple[str, Content]]], process: dict[str, Any], **more: Any) -> Path:
    layout = Layout()
    layout.image([tar(layer) for layer in layers], process, architecture=ARCHITECTURES[os.uname().machine], **more)
    return layout.archive(Path("root.tar"))


def test_an_entry_point_alone(here: Path) -> None:
    found = inspected(archived([[("bin/k", SOLO5), ("k", (LINK, "/bin/k"))]], {"Entrypoint": ["/k"], "Cmd": ["a"]}))
    assert found["facts"]["kernel"] == {
        "value": "/bin/k",
        "why": "it is the entry point, and a Solo5 kernel by its ELF notes",
    }
    assert found["facts"]["command line"]["value"] == "a"
    again = inspected(Path("root.tar"), "b", "-c")
    assert again["facts"]["command line"]["value"] == "b -c"


def test_an_ordinary_image(here: Path) -> None:
    found = inspected(archived([[("bin/sh", PROGRAM)]], {"Cmd": ["/bin/sh"]}), code=3)
    assert found["verdict"] == "ordinary" and "/bin/sh is no kernel" in found["facts"]["container"]["why"]
    assert ask("inspect", "root.tar").stdout.splitlines()[2] == "  " + found["digest"]


def test_labels_that_no_runtime_is_shown(here: Path) -> None:
    labels = {"io.unikernel.kernel": "/k", "org.example": "x"}
    path = archived(
        [[("bin/sh", PROGRAM), ("k", SOLO5)]],
        {"Cmd": ["/bin/sh"], "Labels": labels},
        annotations={"com.urunc.unikernel.binary": "L2s="},
    )
    notes = inspected(path, code=3)["notes"]
    assert len(notes) == 2 and all("shows to no runtime" in note for note in notes)
    assert "com.urunc.unikernel.binary" in notes[0] and "io.unikernel.kernel" in notes[1]
    found = inspected("--annotation", "io.unikernel.kernel=/k", path)
    assert found["facts"]["kernel"]["why"] == "the pod's annotation io.unikernel.kernel says so"


@pytest.mark.parametrize(
    ("layers", "options", "words"),
    [
        ([[("k", SOLO5[:-8])]], (), "truncated or broken ELF"),
        ([[("k", SOLO5)]], ("--annotation", "io.unikernel.memery=1"), "io.unikernel.memery: unknown annotation"),
        ([[("k", (LINK, "../etc/motd"))]], ("--annotation", "io.unikernel.kernel=/k"), "leads out of the image"),
        ([[("k", SOLO5)], [(".wh.k", b"")]], ("--annotation", "io.unikernel.kernel=/k"), "no such kernel in the image"),
        ([[("unikernel.json", b"{")]], (), "/unikernel.json: the image's description"),
        ([[("unikernel.json", (LINK, "/proc/self/environ"))]], (), "no such description in the image"),
        ([[("k", LINUX)]], ("--annotation", 'io.unikernel.cmdline="'), "io.unikernel.cmdline"),
    ],
)  # fmt: skip
def test_what_a_pod_would_be_refused(
    here: Path, layers: list[list[tuple[str, Content]]], options: tuple[str, ...], words: str
) -> None:
    path = archived(layers, {"Entrypoint": ["/k"]})
    found = inspected(*options, path, code=1)
    assert words in found["refusal"]["message"] and found["refusal"]["code"] == "INVALID_ARGUMENT"
    assert not list((here / "tmp").iterdir())


_PATH = st.lists(
    st.sampled_from(("a", "b", "k", "..", ".", "", "unikernel.json", "urunc.json", ".wh.a", ".wh.k", ".wh..wh..opq")),
    min_size=1,
    max_size=5,
).map("/".join)
_CONTENT = st.one_of(
    st.sampled_from((SOLO5, LINUX, b"", b'{"annotations": {"io.unikernel.kernel": "/a/k"}}', b"{")),
    st.tuples(st.sampled_from((LINK, HARD, DIRECTORY, FIFO, DEVICE)), st.one_of(st.just("/etc/passwd"), _PATH)),
)


@given(layers=st.lists(st.lists(st.tuples(_PATH, _CONTENT), max_size=8), min_size=1, max_size=3), entry=_PATH)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_whatever_the_layers_are(here: Path, layers: list[list[tuple[str, Content]]], entry: str) -> None:
    deep = here / "tmp" / "x" / "y" / "z"
    deep.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(deep)
    path = archived(layers, {"Entrypoint": [entry]})
    done = ask("inspect", path)
    assert done.exit_code in (0, 1, 3) and "Traceback" not in done.output
    assert sorted((here / "tmp").rglob("*")) == [here / "tmp" / "x", here / "tmp" / "x" / "y", deep]


def test_a_layout_a_saved_image_a_bundle_and_a_root(here: Path) -> None:
    layout = Layout()
    layout.image([tar([("k", SOLO5)])], {"Cmd": ["/k"]}, architecture=ARCHITECTURES[os.uname().machine])
    assert inspected(layout.directory(here / "root" / "layout"))["form"] == "an OCI image layout"
    (here / "bad").write_bytes(saved([tar([("k", SOLO5)])], {"Cmd": ["/k"]}))
    assert inspected("bad")["form"] == "docker save"
    bundle = here / "root" / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "rootfs" / "k").write_bytes(SOLO5)
    (bundle / "config.json").write_text(
        json.dumps(
            {
                "process": {"args": ["/k", "a"], "env": ["A=b"]},
                "root": {"path": "rootfs"},
                "annotations": {"io.unikernel.memory": "32"},
            }
        )
    )
    found = inspected(bundle)
    assert found["form"] == "a bundle" and found["facts"]["memory"]["value"] == "32 MiB"
    found = inspected(bundle / "rootfs", "/k", "b")
    assert found["form"] == "a root directory" and found["facts"]["command line"]["value"] == "b"
    found = inspected(bundle / "rootfs", code=3)
    assert "no entry point" in found["facts"]["container"]["why"]


def test_what_an_image_says_does_not_reach_the_terminal(here: Path) -> None:
    name = os.fsdecode(b"k\xff\x1b[2J")
    path = archived([[(name, SOLO5), ("k", (LINK, name))]], {"Entrypoint": ["/k"], "Cmd": ["\x1b]0;x\x07", "a\nb"]})
    found = inspected(path)
    assert found["facts"]["kernel"]["value"] == "/k?\x1b[2J"
    shown = ask("inspect", path).stdout
    assert "\x1b" not in shown and "\\x1b[2J" in shown and "a\\nb" in shown


def test_arguments_that_are_no_text(here: Path) -> None:
    refused(ask("inspect", "program", os.fsdecode(b"\xff")), "'\\udcff': an image's documents are UTF-8", code=2)


def test_a_pods_pause_container(here: Path) -> None:
    (here / "root" / "rootfs").mkdir(parents=True)
    spec = {"process": {"args": ["/pause"]}, "annotations": {"io.kubernetes.cri.container-type": "sandbox"}}
    (here / "root" / "config.json").write_text(json.dumps(spec))
    assert "pause container" in inspected("root", code=3)["facts"]["container"]["why"]


def test_words_that_are_no_text(here: Path) -> None:
    for option in (("--arg", os.fsdecode(b"\xff")), ("--env", os.fsdecode(b"A=\xff")), ("--cmdline", "\udcff")):
        refused(build(*option), "an image's documents are UTF-8, and this is not", code=2)


def test_a_question_that_makes_no_sense(here: Path) -> None:
    refused(ask("inspect", "n" * 300), "the image cannot be read: File name too long", code=1)
    refused(build(kernel="n" * 300), "it cannot be packed: File name too long", code=1)
    refused(ask("inspect", "none"), "none: there is no such file or directory", code=2)
    refused(ask("inspect", "--annotation", "x", "solo5"), "is not NAME=VALUE", code=2)
    refused(ask("inspect", "--platform", "linux/amd64", "tmp"), "tmp: only archives and layouts", code=2)
    refused(ask("inspect", "solo5"), "solo5: a truncated or broken tar", code=1)
    refused(ask("inspect", "-", stdin=b""), "-: a truncated or broken tar (empty file)", code=1)


def test_the_temporary_tree_is_gone_whatever_happens(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archived([[("k", SOLO5)]], {"Entrypoint": ["/k"]})

    def broken(*arguments: object) -> None:
        raise ImageFault("on purpose")

    monkeypatch.setattr("shim.cli.image_inspect.explain", broken)
    assert ask("inspect", path).exit_code == 1
    assert not list((here / "tmp").iterdir())
