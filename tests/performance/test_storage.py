"""What an image costs the first pod that needs it, and what every other."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.process.reaper import Reaper
from shim.process.spawn import run
from shim.storage.filesystems.registry import FORMATS
from shim.storage.images import Images
from shim.storage.source import Source
from tests.performance.conftest import Measured

pytestmark = [pytest.mark.timeout(300), pytest.mark.figure("images", on_request=True)]

_FIRST, _SECOND = 3, 100  # rounds
_FILES = 4000
_WORDS = [b"kernel ", b"guest ", b"monitor ", b"tap ", b"image ", b"bundle ", b"sandbox "]


def _tree(top: Path) -> int:
    """A root file system's worth: files from a byte to a quarter of a MiB that compress as programs do; their bytes."""
    chance, total = random.Random(1), 0
    for number in range(_FILES):
        directory = top / f"usr/lib/{number % 80}/{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        size = int(2 ** chance.uniform(0, 18))
        half = chance.randbytes(size // 2) + b"".join(chance.choices(_WORDS, k=size // 12 + 1))
        (directory / f"file-{number}").write_bytes(half)
        total += len(half)
    return total


@contextmanager
def _overlay(layer: Path, place: Path) -> Iterator[Path]:
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    options = f"lowerdir={layer},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"], check=True)
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)


async def test_first_and_second_pod(tmp_path: Path, measured: Measured) -> None:
    layer = tmp_path / "layer"
    total = await asyncio.to_thread(_tree, layer)
    words = f"of {_FILES} files, {total / 2**20:.0f} MiB"
    size = measured.figure("images.size", f"An image {words}", "MiB")
    first = measured.figure("images.first", "The same, for the first pod")
    second = measured.figure("images.second", "The same, for the second pod, by its layers")
    walked = measured.figure("images.walked", "The same, by a walk over its names")
    copied = measured.figure("images.copy", "A pod's own copy of it")
    reaper = Reaper()
    reaper.start()
    try:
        with _overlay(layer, tmp_path / "pod") as merged:
            source = Source(merged, (layer,))
            for format in FORMATS:
                for _ in range(_FIRST):
                    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
                    images = Images(tmp_path / "cache", functools.partial(run, reaper))
                    with first.timed(format):
                        image = await images.build(source, format)
                size.add(format, os.stat(image.path).st_blocks * 512 / 2**20)
                for figure, rounds, known in ((second, _SECOND, source), (walked, _SECOND // 10, Source(layer))):
                    await images.build(known, format)
                    for _ in range(rounds):
                        with figure.timed(format):
                            await images.build(known, format)
                if format == "ext4":
                    for _ in range(_FIRST):
                        with copied.timed(format):
                            await images.copy(image.path, tmp_path / "copy")
    finally:
        reaper.stop()
