"""File system images made from directories, each made once for the node and kept.

An image in the cache is known by a key: the format, the tool, what is asked for, and what names the source's content.
For layers that is a stat of each; else every name's metadata is read, never a file's bytes. Equal content makes equal
bytes, so sources that differ in where they are end in one file.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import functools
import hashlib
import os
import stat
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shim import log
from shim.errors import ImageFault, InvalidRequest, NodeFault
from shim.storage import copies
from shim.storage.cache import Cache
from shim.storage.filesystems.base import FileSystem, Making
from shim.storage.filesystems.registry import file_system
from shim.storage.interruptible import interruptible
from shim.storage.source import Source
from shim.storage.stage import stage
from shim.storage.tools import Run, Tools
from shim.storage.tree import Tree, fingerprint, graft, layer, shown, survey
from shim.threads import in_new_thread, in_thread

_log = log.get(__name__)

#: Bytes of images that the cache keeps while nobody uses them.
LIMIT = 10 << 30
# Part of every key: to be raised when images are made in another way.
_RECIPE = 1
# Of builds, and of copies: each keeps a processor and a disk busy.
_AT_ONCE = 2
# Seconds: more than the step by which the kernel dates changes, a timer's tick (10 ms where HZ is 100).
_TICK = 0.02


class Image(msgspec.Struct, frozen=True):
    """A file in the cache: never written again. `digest` is the SHA-256 of its bytes, in hexadecimal."""

    path: Path
    format: str
    digest: str


class _Wanted(msgspec.Struct, frozen=True):
    """One image as it was asked for. `tree` is None where layers name the source's content."""

    key: str
    top: Path
    tree: Tree | None
    extra: dict[bytes, tuple[Path, Tree]]
    writable: int


class Images:
    """The node's cache of images. Daemons share it; each has one of these."""

    def __init__(self, directory: Path, run: Run, limit: int = LIMIT) -> None:
        """`directory` is made when it is first needed; `limit` is in bytes."""
        self._cache = Cache(directory)
        self._tools = Tools(run)
        self._limit = limit
        self._builds: dict[str, asyncio.Task[Image]] = {}
        self._others: weakref.WeakSet[Images] = weakref.WeakSet()
        self._building, self._copying = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)

    async def build(self, source: Source, format: str, *, extra: Mapping[str, Path] = {}, writable: int = 0) -> Image:
        """The image of `source` in `format`, out of the cache where it is there.

        `extra` are files or directories of the node (a link stands for what it leads to) by the path in the image at
        which they take the place of what is there; `writable` is the room, in MiB, that a file system that can be
        written to has beside its content.
        Who is cancelled leaves the build to others, and to a next try; `close` ends it.
        Raises ImageFault for what the format cannot hold, NodeFault for a missing tool, a full disk, a tool that fails
        and a source that changes meanwhile, TimedOut, and InvalidRequest for a format that there is not, or one that
        cannot be written to.
        """
        kind = file_system(format)
        if writable < 0 or (writable and not kind.writable):
            raise InvalidRequest(f"no guest can write to it, so {writable} MiB of room make no sense", subject=format)
        wanted = await in_thread(self._want, source, kind, extra, writable)
        found = await in_thread(self._find, wanted.key)
        if found is not None:
            return found
        build = self._builds.get(wanted.key)
        if build is None:
            build = self._builds[wanted.key] = asyncio.create_task(self._build(wanted, kind))
            build.add_done_callback(functools.partial(self._built, wanted.key))
        return await asyncio.shield(build)

    async def copy(self, image: Path, target: Path) -> None:
        """A copy that a pod may write to, sharing its blocks with the image where the file system can.

        `target` is whole or not there. Raises NodeFault.
        """
        async with self._copying:
            try:
                await interruptible(copies.copy, image, target)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise NodeFault(
                        "there is no room left for a pod's copy of an image", subject=os.fspath(target.parent)
                    ) from error
                raise NodeFault(
                    f"the image {image} cannot be copied: {error.strerror}", subject=os.fspath(target)
                ) from error

    def beside(self, directory: Path) -> Images:
        """Another cache, whose builds take turns with those of this one, and end when it is closed."""
        other = copy.copy(self)
        other._cache, other._builds = Cache(directory), {}
        self._others.add(other)
        return other

    async def sweep(self) -> None:
        """Remove what daemons that were killed left half built, and images beyond the limit that nobody uses, those
        first that were not asked for longest. Raises NodeFault."""
        await in_thread(self._cache.prepare)
        await self._evict()
        await in_thread(self._cache.clear)

    async def close(self) -> None:
        """End the builds that are under way; nothing of them is left."""
        builds = [build for images in (self, *self._others) for build in images._builds.values()]
        for build in builds:
            build.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def _built(self, key: str, build: asyncio.Task[Image]) -> None:
        del self._builds[key]
        # Whoever waited has been told; if nobody did, nobody else is.
        if not build.cancelled() and (error := build.exception()) is not None:
            _log.info("an image was not made", error=str(error))

    def _want(self, source: Source, kind: FileSystem, extra: Mapping[str, Path], writable: int) -> _Wanted:
        top = _real(source.directory)
        tree = None if source.layers else _survey_directory(top)
        additions: dict[bytes, tuple[Path, Tree]] = {}
        for path, origin in extra.items():
            real = _real(origin)
            additions[os.fsencode(path)] = real, survey(real)
        named = (
            _RECIPE,
            kind.name,
            self._tools.identity(kind.program, kind.package) if kind.program else "",
            writable,
            [layer(each) for each in source.layers] if tree is None else fingerprint(tree),
            sorted((path, fingerprint(addition)) for path, (_, addition) in additions.items()),
        )
        return _Wanted(hashlib.sha256(msgspec.msgpack.encode(named)).hexdigest(), top, tree, additions, writable)

    def _find(self, key: str) -> Image | None:
        found = self._cache.find(key)
        return None if found is None else Image(found[0], found[1].format, found[1].digest)

    async def _build(self, wanted: _Wanted, kind: FileSystem) -> Image:
        await in_thread(self._cache.prepare)
        lock = await self._claim(wanted.key)
        try:
            # Another daemon may have made it while we waited for it.
            found = await in_thread(self._find, wanted.key)
            if found is not None:
                return found
            async with self._building:
                made = await self._make(wanted, kind)
        finally:
            await in_thread(self._cache.release, wanted.key, lock)
        await self._evict()
        return made

    async def _claim(self, key: str) -> int:
        """The key's lock, which another daemon may hold for as long as a build takes."""
        claiming = in_new_thread(functools.partial(self._cache.claim, key), name="image")
        try:
            lock = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(functools.partial(self._let_go, key))
            raise
        assert lock is not None
        return lock

    def _let_go(self, key: str, claiming: asyncio.Future[int | None]) -> None:
        if not claiming.cancelled() and claiming.exception() is None and (lock := claiming.result()) is not None:
            self._cache.release(key, lock)

    async def _make(self, wanted: _Wanted, kind: FileSystem) -> Image:
        place = await in_thread(self._cache.workplace, wanted.key)
        base = await in_thread(_survey_directory, wanted.top) if wanted.tree is None else wanted.tree
        tree, places = await in_thread(graft, base, {path: each for path, (_, each) in wanted.extra.items()})
        kind.check(tree)
        if kind.fills_holes:
            await in_thread(self._cache.require, _apparent(tree))
        await _settled(wanted)
        output = place / "image"
        try:
            directory = wanted.top
            if kind.needs_directory and wanted.extra:
                directory = place / "root"
                extra = {places[path]: origin for path, (origin, _) in wanted.extra.items()}
                await stage(wanted.top, tree, extra, directory, self._tools)
            await kind.make(Making(directory, tree, output, wanted.writable), self._tools)
        except NodeFault as fault:
            raise await in_thread(self._cache.failure, fault) from fault
        except OSError as error:
            raise self._cache.fault(error) from error
        await in_thread(_still, wanted)
        # A volume's directory is nearly always one pod's, and may hold a Secret; only committed layers are anybody's.
        lasting = wanted.tree is None and not wanted.extra
        path, known = await in_thread(self._cache.keep, wanted.key, output, kind.name, lasting=lasting)
        _log.info("an image was made", path=os.fspath(path), source=os.fspath(wanted.top), bytes=known.size)
        return Image(path, known.format, known.digest)

    async def _evict(self) -> None:
        removed = await in_thread(self._cache.evict, self._limit)
        if removed:
            _log.info("images were removed", count=len(removed))


def _real(path: Path) -> Path:
    """Where a path of the node leads: as when it is mounted, links are followed. Raises NodeFault."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # the latter for links in a circle
        raise NodeFault("cannot be reached: its links lead nowhere", subject=os.fspath(path)) from error


def _survey_directory(top: Path) -> Tree:
    tree = survey(top)
    if not stat.S_ISDIR(tree[b""].mode):
        raise ImageFault("is not a directory, and an image is made of one", subject=os.fspath(top))
    return tree


def _apparent(tree: Tree) -> int:
    return sum({entry.identity: entry.size for entry in tree.values() if stat.S_ISREG(entry.mode)}.values())


def _read(wanted: _Wanted) -> list[tuple[Path, Tree]]:
    """What is read where others may write; nobody writes to a committed layer."""
    return [*wanted.extra.values(), *(() if wanted.tree is None else ((wanted.top, wanted.tree),))]


async def _settled(wanted: _Wanted) -> None:
    """Wait until a change would be dated later than all that was seen.

    Tools walk by path, and somebody who can write to a source could put a link to a file of the node's in a
    directory's place, and take it back. Each of that changes a time that nobody can set; `_still` looks at it.
    """
    newest = max((entry.ctime for _, tree in _read(wanted) for entry in tree.values()), default=0)
    if newest > time.time_ns() - _TICK * 10**9:
        await asyncio.sleep(_TICK)


def _still(wanted: _Wanted) -> None:
    """Raises NodeFault where what was read did not hold still."""
    for top, tree in _read(wanted):
        if fingerprint(survey(top)) != fingerprint(tree):
            raise NodeFault("was changed while an image was made of it", subject=shown(os.fsencode(top)))
