"""Images made by the real tools, read back by the kernel where it has the file system, else by another tool."""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim import config
from shim.errors import NodeFault
from shim.guests import linux
from shim.monitors.base import Machine
from shim.monitors.qemu import Qemu
from shim.process.reaper import Reaper
from shim.process.spawn import Completed, run
from shim.storage import formats
from shim.storage.images import Image, Images
from shim.storage.source import Source
from shim.storage.tools import Run
from tests.integration import acceleration, guest, paths

FORMATS = ("iso9660", "ext2", "ext4", "squashfs", "erofs", "cpio")
# Extended attributes that a format does not keep, by its nature or its tool's, by their first characters.
LOST = {"iso9660": "", "cpio": "", "squashfs": "system."}
TIME = 1_234_567_890
# linux/posix_acl_xattr.h, version 2: the owner reads and writes; user 1000, the group, the mask and others read.
ACCESS_LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, may, who)
    for tag, may, who in ((1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 4, 2**32 - 1))
)
# VFS_CAP_REVISION_2 with CAP_NET_RAW (linux/capability.h).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


#: By path: mode, owner, group, time in seconds, content, extended attributes.
Listing = dict[bytes, tuple[int, int, int, int, object, dict[str, bytes]]]


@pytest.fixture
async def tools() -> AsyncIterator[Run]:
    reaper = Reaper()
    reaper.start()
    yield functools.partial(run, reaper)
    reaper.stop()


@pytest.fixture
def images(tmp_path: Path, tools: Run) -> Images:
    return Images(tmp_path / "cache", tools)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def make_tree(top: Path) -> Path:
    """A tree with an entry of every kind, and names of the awkward kinds."""
    top.mkdir()
    here = os.fsencode(top)
    for name in (b"plain", b"README", b"readme", b"with\nnewline", b'"quotes\\ and space ', b"=x", b"-n", b"l" * 250):
        with open(os.path.join(here, name), "wb") as file:
            file.write(b"content of " + name)
    os.mkdir(here + b"/not-utf8-\xff")
    (Path(os.fsdecode(here + b"/not-utf8-\xff")) / os.fsdecode(b"\xe9")).write_text("latin")
    (top / "empty").write_text("")
    (top / "empty-directory").mkdir(mode=0o711)
    os.link(top / "plain", top / "same")
    os.symlink("../../../etc/passwd", top / "out")
    os.symlink("/nowhere/" + "n" * 200, top / "dangling")
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "disk", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(top / "socket"))
    with (top / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(b"after a hole")
    (top / "setuid").write_text("#!")
    os.chown(top / "setuid", 1000, 70000)
    (top / "setuid").chmod(0o4755)
    os.setxattr(top / "setuid", "security.capability", CAPABILITY)
    os.setxattr(top / "readme", "system.posix_acl_access", ACCESS_LIST)
    os.chown(top / "empty-directory", 65534, 3_999_999_999)
    (top / "empty-directory").chmod(0o1711)
    deep = top / "/".join(["deep"] * 20)
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("down here")
    many = top / "many"
    many.mkdir()
    for number in range(200):
        (many / f"file-{number}").write_text("x" * number)
    top.chmod(0o750)
    return aged(top)


def aged(top: Path) -> Path:
    """All of it last changed at one TIME."""
    subprocess.run(["find", top, "-exec", "touch", "-h", "-d", f"@{TIME}", "{}", "+"], check=True)
    return top


def listing(top: Path, format: str) -> Listing:
    """All that should come out as it went in."""
    found: Listing = {}
    here = os.fsencode(top)
    for directory, directories, names in os.walk(here):
        for name in (*directories, *names, *((b".",) if directory == here else ())):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                content = status.st_rdev
            kept = extended(path, format)
            mode = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode
            relative = os.path.relpath(path, here)
            found[relative] = (mode, status.st_uid, status.st_gid, int(status.st_mtime), content, kept)
    return found


def extended(path: bytes, format: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:  # a squashfs in which nothing has any
        assert error.errno == errno.EOPNOTSUPP
        return {}
    kept = (name for name in names if format not in LOST or not name.startswith(LOST[format]))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in kept}


def file_systems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}


@contextmanager
def opened(image: Path, format: str, place: Path) -> Iterator[Path]:
    """What is in the image, as a directory."""
    place.mkdir()
    if format in file_systems():
        subprocess.run(["mount", "-o", "loop,ro", "-t", format, image, place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
    elif format == "cpio":
        words = ("--extract", "--quiet", "--preserve-modification-time", "--make-directories")
        with image.open("rb") as archive:
            subprocess.run(["cpio", *words], check=True, stdin=archive, cwd=place)
        yield place
    else:
        assert format == "iso9660", f"this kernel has no {format}"
        xorriso(image, "-osirrox", "on:auto_chmod_on:device_files", "-extract", "/", os.fspath(place))
        yield place


def xorriso(image: Path, *words: str) -> str:
    command = ["xorriso", "-no_rc", "-report_about", "FAILURE", "-indev", f"stdio:{image}", *words]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace")


def comparable(found: Listing, format: str) -> Listing:
    """Without what a tool does not give back when it unpacks, though the image has it: times of links and directories,
    the top itself, sockets."""
    if format in file_systems():
        return found
    return {
        path: (mode, user, group, time if stat.S_ISREG(mode) else 0, content, kept)
        for path, (mode, user, group, time, content, kept) in found.items()
        if path != b"." and not stat.S_ISSOCK(mode)
    }


async def check(image: Image, source: Path, place: Path) -> None:
    """The image holds what is in the directory `source`."""
    with opened(image.path, image.format, place) as found:
        seen = listing(found, image.format)
    if image.format.startswith("ext"):
        assert seen.pop(b"lost+found", None)
    assert comparable(seen, image.format) == comparable(listing(source, image.format), image.format)


@pytest.mark.parametrize("format", FORMATS)
async def test_what_goes_in_comes_out(format: str, images: Images, tree: Path, tmp_path: Path) -> None:
    image = await images.build(Source(tree), format)
    assert image.path.stat().st_mode & 0o777 == 0o444
    assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.digest
    assert formats.read(image.path) == format
    await check(image, tree, tmp_path / "found")
    if format == "iso9660":
        # What its own tool does not unpack is there all the same.
        lines = xorriso(image.path, "-find", "/", "-maxdepth", "1", "-exec", "lsdl", "--").splitlines()
        assert any(line.startswith("drwxr-x---") and line.endswith("'/'") for line in lines)
        assert any(line.startswith("srwx") and line.endswith("'/socket'") for line in lines)


@pytest.mark.parametrize("format", FORMATS)
async def test_equal_content_makes_equal_bytes(format: str, images: Images, tree: Path, tmp_path: Path) -> None:
    first = await images.build(Source(tree), format)
    subprocess.run(["cp", "-a", tree, tmp_path / "copy"], check=True)
    assert await images.build(Source(tmp_path / "copy"), format) == first
    assert list((tmp_path / "cache/images").iterdir()) == [first.path]


@pytest.mark.parametrize("format", FORMATS)
async def test_what_is_put_over_the_source(format: str, images: Images, tmp_path: Path) -> None:
    def source(top: Path) -> Path:
        for name in ("etc/app", "run", "var", "data"):
            (top / name).mkdir(parents=True)
        (top / "var/run").symlink_to("/run")
        (top / "etc/hosts").symlink_to("/proc/outside")
        (top / "data/old").write_text("hidden")
        return aged(top)

    def extras(top: Path) -> Path:
        (top / "secret/..data").mkdir(parents=True)
        (top / "secret/..data/token").write_text("xyz")
        (top / "secret/token").symlink_to("..data/token")
        (top / "hosts").write_text("127.0.0.1 localhost")
        (top / "link").symlink_to("hosts")
        return aged(top)

    own = extras(tmp_path / "extras")
    image = await images.build(
        Source(source(tmp_path / "source")),
        format,
        extra={
            "/etc/hosts": own / "link",
            "/data": own / "secret",
            "var/run/secrets/one": own / "secret",
            "/new/deep/file": own / "hosts",
        },
    )
    expected = source(tmp_path / "expected")
    (expected / "etc/hosts").unlink()
    (expected / "data/old").unlink()
    for target in ("data", "run/secrets/one"):
        subprocess.run(["mkdir", "-p", expected / target], check=True)
        subprocess.run(["cp", "-a", "-T", own / "secret", expected / target], check=True)
    (expected / "new/deep").mkdir(parents=True)
    for target in ("etc/hosts", "new/deep/file"):
        subprocess.run(["cp", "-a", "-T", own / "hosts", expected / target], check=True)
    aged(expected)
    await check(image, expected, tmp_path / "found")
    # And the same bytes as if it had been so from the start.
    assert (await images.build(Source(expected), format)).digest == image.digest


class Counting:
    """Runs the tools, and knows which."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.programs: list[str] = []

    async def __call__(self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Completed:
        self.programs.append(Path(argv[0]).name)
        return await self._run(argv, timeout=timeout, env=env)


async def test_one_of_many_that_ask_at_once_makes_it(tools: Run, tree: Path, tmp_path: Path) -> None:
    counted = Counting(tools)
    daemons = [Images(tmp_path / "cache", counted) for _ in range(3)]
    asked = [daemon.build(Source(tree), "squashfs") for daemon in daemons for _ in range(4)]
    assert len(set(await asyncio.gather(*asked))) == 1
    assert counted.programs == ["mksquashfs"]
    assert await daemons[0].build(Source(tree), "squashfs") in {await daemons[1].build(Source(tree), "squashfs")}
    assert counted.programs == ["mksquashfs"]
    assert not list((tmp_path / "cache/building").iterdir())


@contextmanager
def overlay(layers: Sequence[Path], place: Path) -> Iterator[Path]:
    """As a snapshotter mounts a container's root file system."""
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    lower = ":".join(map(os.fspath, layers))
    options = f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"], check=True)
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)


@pytest.mark.parametrize("format", ["ext4", "erofs", "cpio"])
async def test_a_second_pod_of_an_image_pays_nothing(
    format: str, tools: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counting(tools)
    (tmp_path / "snapshots/1").mkdir(parents=True)
    tree = make_tree(tmp_path / "snapshots/1/fs")
    images = Images(tmp_path / "cache", counted)
    upper = tmp_path / "snapshots/2/fs"
    (upper / "many").mkdir(parents=True)
    (upper / "plain").write_text("of the upper layer")
    os.mknod(upper / "readme", 0o600 | stat.S_IFCHR, 0)  # a whiteout
    with overlay((upper, tree), tmp_path / "one") as merged:
        assert not (merged / "readme").exists()
        first = await images.build(Source(merged, (upper, tree)), format)
        await check(first, merged, tmp_path / "found")
    made = list(counted.programs)
    monkeypatch.setattr("shim.storage.images.survey", None)
    with overlay((upper, tree), tmp_path / "two") as merged:
        assert await images.build(Source(merged, (upper, tree)), format) == first
    assert counted.programs == made


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", *words, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("format", FORMATS)
async def test_a_full_disk(format: str, tools: Run, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/noise").write_bytes(os.urandom(3 << 20))
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as small:
        with pytest.raises(NodeFault, match="no room") as raised:
            await Images(small / "cache", tools).build(Source(tmp_path / "source"), format)
        assert raised.value.subject == str(small / "cache")
        for name in ("images", "keys", "building"):
            assert not list((small / "cache" / name).iterdir())


async def test_a_daemon_that_is_killed(images: Images, tmp_path: Path) -> None:
    """What it had half made is gone after a sweep, and its lock does not keep anybody waiting."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    program = f"""
import asyncio
from pathlib import Path
from shim.storage.images import Image, Images
from shim.storage.source import Source
async def hang(argv, *, timeout, env=None):
    next(Path(word) for word in argv if word.endswith("/image")).write_text("half")
    print("half made", flush=True)
    await asyncio.sleep(60)
asyncio.run(Images(Path({str(tmp_path / "cache")!r}), hang).build(Source(Path({str(tmp_path / "source")!r})), "erofs"))
"""
    killed = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert killed.stdout is not None and killed.stdout.readline() == b"half made\n"
    building = tmp_path / "cache/building"
    await images.sweep()
    assert list(building.glob("*/image")), "it is still at it, and is left alone"
    killed.kill()
    killed.communicate()
    await images.sweep()
    assert not list(building.iterdir())
    assert (await images.build(Source(tmp_path / "source"), "erofs")).path.exists()


@pytest.mark.parametrize("format", ["ext2", "ext4"])
async def test_room_to_write_in_a_copy(format: str, images: Images, tree: Path, tmp_path: Path) -> None:
    image = await images.build(Source(tree), format, writable=24)
    copy = tmp_path / "pod" / "disk"
    copy.parent.mkdir()
    await images.copy(image.path, copy)
    with mounted(tmp_path / "there", "-o", "loop", "-t", format, os.fspath(copy)) as there:
        (there / "new").write_bytes(os.urandom(24 << 20))
        (there / "plain").write_text("changed")
    assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.digest
    assert subprocess.run(["e2fsck", "-fn", copy], capture_output=True).returncode == 0


@pytest.mark.parametrize("format", ["ext2", "ext4"])
async def test_room_for_what_is_small_large_and_hollow(format: str, images: Images, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2000):
        (source / f"a-rather-long-name-for-a-file-that-holds-a-byte-{number}").write_bytes(b"1")
    for number in range(400):
        (source / f"directory-{number}").mkdir()
    (source / "large").write_bytes(os.urandom(8 << 20))
    with (source / "hollow").open("wb") as hollow:
        hollow.truncate(1 << 40)
    image = await images.build(Source(source), format)
    assert image.path.stat().st_size < 64 << 20
    with opened(image.path, format, tmp_path / "found") as found:
        assert len(list(found.iterdir())) == 2403
        assert (found / "hollow").stat().st_size == 1 << 40
        assert (found / "large").read_bytes() == (source / "large").read_bytes()


async def test_a_copy_shares_blocks_where_the_file_system_can(images: Images, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    with mounted(tmp_path / "there", "-o", "loop", os.fspath(disk)) as there:
        (there / "image").write_bytes(os.urandom(16 << 20))
        os.sync()
        before = os.statvfs(there).f_bfree
        await images.copy(there / "image", there / "copy")
        os.sync()
        assert before - os.statvfs(there).f_bfree < 1 << 8  # blocks of 4 KiB, of 4096 that the file has
        assert (there / "copy").read_bytes() == (there / "image").read_bytes()


async def test_a_source_that_does_not_hold_still(tools: Run, tree: Path, tmp_path: Path) -> None:
    async def meddling(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Completed:
        (tree / "plain").write_text("changed")
        return await tools(argv, timeout=timeout, env=env)

    with pytest.raises(NodeFault, match="changed while"):
        await Images(tmp_path / "cache", meddling).build(Source(tree), "erofs")
    for name in ("images", "keys", "building"):
        assert not list((tmp_path / "cache" / name).iterdir())


async def test_a_tool_that_fails_says_why(images: Images, tmp_path: Path) -> None:
    with mounted(tmp_path / "source", "-t", "tmpfs", "tmpfs") as source:
        # More than ext4 has room for in one inode.
        for name in ("user.large", "user.more"):
            os.setxattr(source, name, b"x" * 3000)
        with pytest.raises(NodeFault, match=r"mke2fs: cannot make an image \(status 1\): .*xattr"):
            await images.build(Source(source), "ext4")
    assert not list((tmp_path / "cache/building").iterdir())


_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
cd /tree
for name in plain same readme out null disk fifo socket setuid empty-directory deep/deep/deep/deep; do
    echo "entry: $name $($b stat -c '%f %u %g %h %Y %t %T' $name) $($b readlink $name)"
done
for name in plain same sparse =x not-utf8-*/*; do echo "sum: $($b sha256sum < $name)"; done
[ plain -ef same ] && echo "one file"
echo "names: $($b find . -print0 | $b tr -cd '\\0' | $b wc -c)"
$b poweroff -f
"""


async def test_linux_unpacks_an_initrd(images: Images, tools: Run, tree: Path, tmp_path: Path) -> None:
    """What cpio(1) makes of an archive proves little: hard links, devices and sockets are Linux's own doing."""
    program = tmp_path / "init"
    program.write_text(_INIT)
    program.chmod(0o755)
    top = tmp_path / "initrd"
    (top / "dev").mkdir(parents=True)
    busybox = Path(paths.program("busybox"))
    image = await images.build(Source(top), "cpio", extra={"/init": program, "/bin/busybox": busybox, "/tree": tree})
    (tmp_path / "run").mkdir()
    acceleration.lend(tmp_path / "run")
    monitor = Qemu(config.Qemu(), tools, tmp_path / "run")
    words = ("console=ttyS0", "panic=-1", "quiet")
    machine = Machine(kernel=guest.kernel(), memory=128, words=words, initrd=image.path, clock=linux.CLOCK)
    launch = await monitor.launch(machine)
    acceleration.keep(tmp_path / "run")
    console = (await tools(launch.argv, timeout=30)).stdout.decode(errors="replace").replace("\r", "")
    found = [line for line in console.splitlines() if line.startswith("entry: ")]
    expected = []
    for line in found:
        name = line.split()[1]
        status = (tree / name).lstat()
        rdev = status.st_rdev
        target = os.readlink(tree / name) if stat.S_ISLNK(status.st_mode) else ""
        expected.append(
            f"entry: {name} {status.st_mode:x} {status.st_uid} {status.st_gid} {status.st_nlink} {TIME}"
            f" {os.major(rdev):x} {os.minor(rdev):x} {target}"
        )
    assert len(found) == 11, console
    assert found == expected
    names = ("plain", "same", "sparse", "=x", os.fsdecode(b"not-utf8-\xff/\xe9"))
    sums = [hashlib.sha256((tree / name).read_bytes()).hexdigest() for name in names]
    assert [line.split()[1] for line in console.splitlines() if line.startswith("sum: ")] == sums
    assert "one file" in console
    assert f"names: {len(listing(tree, 'cpio'))}\n" in console
