"""What an image costs the first pod that needs it, and what every other. Prints figures; judges nothing."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shim.process.reaper import Reaper
from shim.process.spawn import run
from shim.storage.filesystems.registry import FORMATS
from shim.storage.images import Images
from shim.storage.source import Source

pytestmark = pytest.mark.timeout(300)

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


async def test_first_and_second_pod(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    total = await asyncio.to_thread(_tree, layer)
    reaper = Reaper()
    reaper.start()
    print(f"\n{_FILES} files, {total / 2**20:.0f} MiB; milliseconds, median")
    print(f"  {'format':<10}{'MiB':>6}{'first':>9}{'second, layers':>16}{'second, walk':>14}")
    with _overlay(layer, tmp_path / "pod") as merged:
        for format in FORMATS:
            first: list[float] = []
            for _ in range(_FIRST):
                shutil.rmtree(tmp_path / "cache", ignore_errors=True)
                images = Images(tmp_path / "cache", functools.partial(run, reaper))
                began = time.perf_counter()
                image = await images.build(Source(merged, (layer,)), format)
                first.append(time.perf_counter() - began)
            await images.build(Source(layer), format)
            second = await _again(images, Source(merged, (layer,)), format, _SECOND)
            walked = await _again(images, Source(layer), format, _SECOND // 10)
            size = os.stat(image.path).st_blocks * 512 / 2**20
            medians = statistics.median(first) * 1000, second * 1000, walked * 1000
            print(f"  {format:<10}{size:>6.0f}{medians[0]:>9.0f}{medians[1]:>16.2f}{medians[2]:>14.0f}")
            if format == "ext4":
                copying = []
                for _ in range(_FIRST):
                    began = time.perf_counter()
                    await images.copy(image.path, tmp_path / "copy")
                    copying.append(time.perf_counter() - began)
                print(f"  a pod's own copy of it: {statistics.median(copying) * 1000:.0f} ms")
    reaper.stop()


async def _again(images: Images, source: Source, format: str, rounds: int) -> float:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await images.build(source, format)
        found.append(time.perf_counter() - began)
    return statistics.median(found)
