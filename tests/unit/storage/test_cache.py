"""The cache on disk: what is removed, when, and what never."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from shim.errors import NodeFault
from shim.storage.cache import Cache, sha256

_OLD = 10_000  # seconds


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def add(cache: Cache, key: str, content: bytes, *, unused: float = _OLD, lasting: bool = True) -> Path:
    """An image that was last asked for `unused` seconds ago."""
    lock = cache.claim(key)
    assert lock is not None
    made = cache.workplace(key) / "image"
    made.write_bytes(content)
    path, known = cache.keep(key, made, "erofs", lasting=lasting)
    cache.release(key, lock)
    assert known.digest == hashlib.sha256(content).hexdigest()
    os.utime(path, (time.time() - unused, 0))
    return path


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_what_was_kept_is_found_and_counts_as_used(cache: Cache) -> None:
    path = add(cache, "k", b"x" * 5000)
    assert cache.find("other") is None
    found = cache.find("k")
    assert found is not None
    assert found[0] == path
    assert time.time() - path.stat().st_atime < 60
    assert names(cache.directory / "building") == []
    assert cache.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("note", [b"", b"{", b"{}", b'{"digest": 1}'])
def test_a_broken_key_is_no_key(note: bytes, cache: Cache) -> None:
    add(cache, "k", b"x")
    (cache.directory / "keys/k").write_bytes(note)
    assert cache.find("k") is None
    cache.clear()
    assert names(cache.directory / "keys") == []


def test_an_image_that_was_cut_short_is_not_used(cache: Cache) -> None:
    path = add(cache, "k", b"x" * 100)
    path.chmod(0o600)
    os.truncate(path, 10)
    assert cache.find("k") is None


def test_the_longest_unused_go_first(cache: Cache) -> None:
    block = 8192
    paths = [add(cache, f"k{n}", bytes([n]) * block, unused=_OLD + 100 * n) for n in range(4)]
    assert cache.evict(4 * block) == []
    assert cache.evict(2 * block) == [paths[3], paths[2]]
    assert cache.find("k3") is None
    assert cache.find("k1") is not None
    cache.clear()
    assert names(cache.directory / "keys") == ["k0", "k1"]


def test_what_is_new_or_open_stays(cache: Cache) -> None:
    new, held, idle = (
        add(cache, key, key.encode() * 5000, unused=unused)
        for key, unused in (("new", 5), ("held", _OLD), ("idle", _OLD))
    )
    with held.open("rb"):
        assert cache.evict(0) == [idle]
        assert cache.evict(0) == []
    assert cache.evict(0) == [held]
    assert new.exists()


def test_what_does_not_last_goes_when_it_is_done(cache: Cache) -> None:
    add(cache, "pod", b"secret", lasting=False)
    kept = add(cache, "image", b"shared")
    add(cache, "too", b"shared", lasting=False)
    assert [path.name.split(".")[0] for path in cache.evict(1 << 30)] == [hashlib.sha256(b"secret").hexdigest()]
    assert kept.exists()


def test_clearing_leaves_what_is_being_made(cache: Cache) -> None:
    lock = cache.claim("busy")
    assert lock is not None
    (cache.workplace("busy") / "image").write_text("half")
    (cache.directory / "building/dead").mkdir()
    (cache.directory / "building/dead/image").write_text("half")
    (cache.directory / "building/dead.lock").write_text("")
    cache.clear()
    assert names(cache.directory / "building") == ["busy", "busy.lock"]
    assert cache.claim("busy", wait=False) is None
    cache.release("busy", lock)
    assert names(cache.directory / "building") == []


def test_a_digest_reads_no_holes(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"a")
        file.seek(9 << 20)
        file.write(b"b")
        file.truncate((13 << 20) + 7)
    with (tmp_path / "file").open("rb") as file:
        assert sha256(file.fileno()) == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_a_cache_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeFault, match="file/cache: the cache of images cannot be used: Not a directory"):
        Cache(tmp_path / "file" / "cache").prepare()


def test_too_little_room_is_known_before(cache: Cache) -> None:
    cache.require(1)
    with pytest.raises(NodeFault, match=r"no room left for an image; .*storage\.directory"):
        cache.require(1 << 62)
