"""Images made by the real tools, read back by the kernel where it has the file system, else by another tool."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.errors import ImageFault, NodeFault
from shim.process.reaper import Reaper
from shim.process.spawn import run
from shim.storage import formats
from shim.storage.images import Images
from shim.storage.source import Source
from shim.storage.tools import Run

FORMATS = ("iso9660", "ext2", "ext4", "squashfs", "erofs", "cpio")
# What a format does not keep, by its nature or its tool's.
NO_ATTRIBUTES = ("iso9660", "cpio")
TIME = 1_234_567_890
# VFS_CAP_REVISION_2 with CAP_NET_RAW (linux/capability.h).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


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
    for directory, _, names in os.walk(here, topdown=False):
        for name in names:
            os.utime(os.path.join(directory, name), (TIME, TIME), follow_symlinks=False)
        for name in os.listdir(directory):
            os.utime(os.path.join(directory, name), (TIME, TIME), follow_symlinks=False)
    os.utime(here, (TIME, TIME))
    return top


def listing(top: Path, attributes: bool = True) -> dict[bytes, tuple[object, ...]]:
    """All that should come out as it went in."""
    found: dict[bytes, tuple[object, ...]] = {}
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
            kept = dict.fromkeys(os.listxattr(path, follow_symlinks=False)) if attributes else {}
            for each in kept:
                kept[each] = os.getxattr(path, each, follow_symlinks=False)
            mode = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode
            relative = os.path.relpath(path, here)
            found[relative] = (mode, status.st_uid, status.st_gid, int(status.st_mtime), content, kept)
    return found


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
        with image.open("rb") as archive:
            subprocess.run(
                ["cpio", "--extract", "--quiet", "--preserve-modification-time", "--make-directories"],
                *(),
                check=True,
                stdin=archive,
                cwd=place,
            )
        yield place
    else:
        assert format == "iso9660", f"this kernel has no {format}"
        words = ("-no_rc", "-report_about", "FAILURE", "-osirrox", "on:auto_chmod_on:device_files")
        subprocess.run(
            ["xorriso", *words, "-indev", f"stdio:{image}", "-extract", "/", place], check=True, capture_output=True
        )
        yield place


@pytest.mark.parametrize("format", FORMATS)
async def test_what_goes_in_comes_out(format: str, images: Images, tree: Path, tmp_path: Path) -> None:
    image = await images.build(Source(tree), format)
    assert image.path.stat().st_mode & 0o777 == 0o444
    assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.digest
    assert formats.read(image.path) == format
    expected = listing(tree, attributes=format not in NO_ATTRIBUTES)
    with opened(image.path, format, tmp_path / "mounted") as found:
        seen = listing(found, attributes=format not in NO_ATTRIBUTES)
    if format.startswith("ext"):
        assert seen.pop(b"lost+found", None)
    assert seen == expected
