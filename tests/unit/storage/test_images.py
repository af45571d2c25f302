"""Making images once, whoever asks, and whoever goes away meanwhile; the tools are a stand-in's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from shim.errors import ImageFault, InvalidRequest, NodeFault
from shim.process.spawn import Completed
from shim.storage import tools
from shim.storage.images import Images
from shim.storage.source import Source
from tests.unit.storage.fake import FakeTools


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with all the programs, which nobody executes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("mke2fs", "debugfs", "mksquashfs", "mkfs.erofs", "xorriso", "cp"):
        (programs / name).write_text("")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(tools, "_PLACES", ())
    return programs


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    return Source(tmp_path / "source")


@pytest.fixture
def fake() -> FakeTools:
    return FakeTools()


@pytest.fixture
def images(tmp_path: Path, fake: FakeTools) -> Images:
    return Images(tmp_path / "cache", fake)


def left(tmp_path: Path, name: str) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache" / name))


class Gate:
    """Holds the tools up until it is opened."""

    def __init__(self, fake: FakeTools) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        fake.before = self._wait

    async def _wait(self, argv: Sequence[str]) -> Completed | None:
        self.reached.set()
        await self.open.wait()
        return None


async def test_the_second_time_nothing_is_run(images: Images, fake: FakeTools, source: Source) -> None:
    first = await images.build(source, "erofs")
    assert len(fake.asked) == 1
    assert await images.build(source, "erofs") == first
    assert len(fake.asked) == 1
    assert first.path.read_bytes() == b"image"
    assert first.path.name == f"{first.digest}.erofs"


async def test_each_difference_is_an_image_of_its_own(
    images: Images, fake: FakeTools, source: Source, node: Path, tmp_path: Path
) -> None:
    (tmp_path / "extra").write_text("1")
    extra = {"/one": tmp_path / "extra"}
    await images.build(source, "erofs")
    await images.build(source, "squashfs")
    await images.build(source, "erofs", extra=extra)
    await images.build(source, "erofs", extra={"/two": tmp_path / "extra"})
    (tmp_path / "extra").write_text("2")
    await images.build(source, "erofs", extra=extra)
    (node / "mkfs.erofs").write_text("another version")
    await images.build(source, "erofs")
    assert [Path(argv[0]).name for argv in fake.asked].count("mkfs.erofs") == 5


async def test_layers_name_the_content(images: Images, fake: FakeTools, source: Source, tmp_path: Path) -> None:
    lower, upper = (tmp_path / f"snapshots/{number}/fs" for number in (1, 2))
    for each in (lower, upper):
        each.mkdir(parents=True)
    first = await images.build(Source(source.directory, (upper, lower)), "erofs")
    # Not even the directory has to be there.
    assert await images.build(Source(tmp_path / "none", (upper, lower)), "erofs") == first
    assert len(fake.asked) == 1
    await images.build(Source(source.directory, (lower, upper)), "erofs")
    (upper / "new").write_text("")
    await images.build(Source(source.directory, (upper, lower)), "erofs")
    assert len(fake.asked) == 3
    # Another snapshot in its place, whose top looks the same, as those of mounted images may.
    (upper.parent / "other").mkdir()
    await images.build(Source(source.directory, (upper, lower)), "erofs")
    assert len(fake.asked) == 4


async def test_who_goes_away_leaves_the_build_to_others(images: Images, fake: FakeTools, source: Source) -> None:
    gate = Gate(fake)
    one, other = (asyncio.ensure_future(images.build(source, "erofs")) for _ in range(2))
    await gate.reached.wait()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    gate.open.set()
    assert (await other).path.exists()
    assert len(fake.asked) == 1


async def test_a_build_that_nobody_waits_for_serves_the_next(
    images: Images, fake: FakeTools, source: Source, tmp_path: Path
) -> None:
    gate = Gate(fake)
    one = asyncio.ensure_future(images.build(source, "erofs"))
    await gate.reached.wait()
    one.cancel()
    await asyncio.wait([one])
    gate.open.set()
    await images.build(source, "erofs")
    assert len(fake.asked) == 1
    assert left(tmp_path, "building") == []


async def test_closing_leaves_nothing(images: Images, fake: FakeTools, source: Source, tmp_path: Path) -> None:
    gate = Gate(fake)
    one = asyncio.ensure_future(images.build(source, "erofs"))
    await gate.reached.wait()
    await images.close()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert left(tmp_path, "building") == left(tmp_path, "images") == []


async def test_another_cache_takes_turns_and_ends_with_this_one(
    images: Images, fake: FakeTools, source: Source, tmp_path: Path
) -> None:
    gate = Gate(fake)
    builds = [asyncio.create_task(images.beside(tmp_path / f"own{n}").build(source, "erofs")) for n in range(3)]
    await gate.reached.wait()
    await asyncio.sleep(0.05)
    assert len(fake.asked) == 2, "no more than two at once, wherever they go"
    await images.close()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*builds, return_exceptions=True))


async def test_no_more_than_two_at_once(images: Images, fake: FakeTools, source: Source) -> None:
    gate = Gate(fake)
    builds = [asyncio.ensure_future(images.build(source, format)) for format in ("erofs", "squashfs", "iso9660")]
    await gate.reached.wait()
    await asyncio.sleep(0.1)
    assert len(fake.asked) == 2
    gate.open.set()
    assert len({image.format for image in await asyncio.gather(*builds)}) == 3


async def test_another_daemons_build_is_waited_for(
    images: Images, fake: FakeTools, source: Source, tmp_path: Path
) -> None:
    gate, others = Gate(fake), FakeTools()
    one = asyncio.ensure_future(images.build(source, "erofs"))
    await gate.reached.wait()
    other = asyncio.ensure_future(Images(tmp_path / "cache", others).build(source, "erofs"))
    given_up = asyncio.ensure_future(Images(tmp_path / "cache", others).build(source, "erofs"))
    await asyncio.sleep(0.1)
    assert not other.done()
    given_up.cancel()
    gate.open.set()
    assert await one == await other
    assert others.asked == []


async def test_what_fails_is_tried_again(images: Images, fake: FakeTools, source: Source, tmp_path: Path) -> None:
    async def fails(argv: Sequence[str]) -> Completed:
        return Completed(1, b"", b"first line\nmkfs: \xff broken\n")

    fake.before = fails
    with pytest.raises(NodeFault, match=r"mkfs\.erofs: cannot make an image \(status 1\): .*\\xff broken"):
        await images.build(source, "erofs")
    assert left(tmp_path, "building") == left(tmp_path, "images") == left(tmp_path, "keys") == []
    fake.before = None
    assert (await images.build(source, "erofs")).path.exists()


@pytest.mark.parametrize("attempt", range(5))
async def test_a_directory_that_was_a_link_for_a_moment(
    attempt: int, images: Images, fake: FakeTools, source: Source, tmp_path: Path
) -> None:
    """Also where it had only just been made, so that its times are those of the moment."""
    inside, aside = source.directory / "inside", source.directory / "aside"

    async def swap(argv: Sequence[str]) -> Completed | None:
        inside.rename(aside)
        inside.symlink_to("/root")
        inside.unlink()
        aside.rename(inside)
        return None

    fake.before = swap
    inside.mkdir()
    with pytest.raises(NodeFault, match="changed while an image was made"):
        await images.build(source, "erofs")
    assert left(tmp_path, "images") == left(tmp_path, "keys") == []


async def test_a_tool_that_is_missing(images: Images, source: Source, node: Path) -> None:
    (node / "mksquashfs").unlink()
    with pytest.raises(NodeFault, match=r"mksquashfs: is not installed.*install the package squashfs-tools"):
        await images.build(source, "squashfs")
    (node / "mksquashfs").write_text("")
    (node / "mksquashfs").chmod(0o755)
    assert (await images.build(source, "squashfs")).path.exists()
    (node / "mkfs.erofs").unlink()
    with pytest.raises(NodeFault, match="erofs-utils"):
        await images.build(source, "erofs")


async def test_what_makes_no_sense(images: Images, source: Source, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"zfs: is not a format .* use iso9660, ext2, ext4, squashfs, erofs, cpio"):
        await images.build(source, "zfs")
    with pytest.raises(InvalidRequest, match="iso9660: no guest can write to it"):
        await images.build(source, "iso9660", writable=1)
    with pytest.raises(ImageFault, match="file: is not a directory"):
        await images.build(Source(source.directory / "file"), "erofs")
    with pytest.raises(NodeFault, match="none: cannot be read"):
        await images.build(source, "erofs", extra={"/x": tmp_path / "none"})
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(NodeFault, match="circle: cannot be reached"):
        await images.build(Source(tmp_path / "circle"), "erofs")
    with pytest.raises(ImageFault, match="leads out of the image"):
        await images.build(source, "erofs", extra={"/../x": source.directory / "file"})


@pytest.mark.parametrize(
    ("format", "name", "message"),
    [
        ("erofs", "n" * 255, r"erofs cannot hold names longer than 254 bytes: nnn"),
        ("cpio", "TRAILER!!!", "ends an archive"),
    ],
)
async def test_what_a_format_cannot_hold_is_named(
    format: str, name: str, message: str, images: Images, source: Source
) -> None:
    (source.directory / name).write_text("")
    with pytest.raises(ImageFault, match=message):
        await images.build(source, format)


async def test_an_image_in_use_elsewhere_survives_a_sweep(tmp_path: Path, fake: FakeTools, source: Source) -> None:
    images = Images(tmp_path / "cache", fake, limit=0)
    image = await images.build(source, "erofs")
    await images.sweep()
    assert image.path.exists(), "it was asked for a moment ago"
    os.utime(image.path, (0, 0))
    with image.path.open("rb"):
        await images.sweep()
        assert image.path.exists(), "somebody has it open"
    await images.sweep()
    assert not image.path.exists()
    assert left(tmp_path, "keys") == []
    assert (await images.build(source, "erofs")).path.exists()


async def test_only_images_of_layers_last(images: Images, fake: FakeTools, source: Source, tmp_path: Path) -> None:
    layer = tmp_path / "snapshots/1/fs"
    layer.mkdir(parents=True)
    of_layers = await images.build(Source(source.directory, (layer,)), "erofs")
    fake.content = b"a volume's"
    of_volume = await images.build(source, "erofs")
    fake.content = b"one pod's"
    with_extra = await images.build(
        Source(source.directory, (layer,)), "erofs", extra={"/x": source.directory / "file"}
    )
    for image in (of_layers, of_volume, with_extra):
        os.utime(image.path, (0, 0))
    await images.sweep()
    assert [image.path.exists() for image in (of_layers, of_volume, with_extra)] == [True, False, False]


async def test_a_copy(images: Images, source: Source, tmp_path: Path) -> None:
    image = await images.build(source, "erofs")
    await images.copy(image.path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"image"
    with pytest.raises(NodeFault, match=r"none/copy: the image .* cannot be copied: No such file"):
        await images.copy(image.path, tmp_path / "none/copy")
