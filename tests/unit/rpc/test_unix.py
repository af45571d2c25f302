"""Sockets that only root can open, and nobody's lost."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from shim.errors import InvalidRequest, NodeFault
from shim.rpc import unix


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(path))


def test_a_socket_is_roots_and_leaves_the_umask_alone(room: Path) -> None:
    before = os.umask(0)
    try:
        with unix.listen(room / "s") as listening:
            assert _mode(room / "s") == 0o600
            assert os.umask(0) == 0
            assert os.listdir(room) == ["s"]
            assert unix.answers(room / "s")
            assert not listening.get_inheritable()
    finally:
        os.umask(before)


def test_until_it_is_in_place_a_socket_is_in_a_directory_of_its_own(room: Path) -> None:
    with unix.claim(room / "s") as draft:
        assert _mode(draft.parent) == 0o700
        _dead(draft)
    assert os.listdir(room) == ["s"]


def test_a_dead_socket_is_replaced(room: Path) -> None:
    _dead(room / "s")
    with unix.listen(room / "s"):
        assert unix.answers(room / "s")


def test_a_live_one_is_not(room: Path) -> None:
    with unix.listen(room / "s"):
        with pytest.raises(NodeFault, match="another service answers here; stop it first"):
            unix.listen(room / "s")
        assert unix.answers(room / "s")
        assert os.listdir(room) == ["s"]


def test_a_live_one_too_busy_to_accept_is_not_replaced_either(room: Path) -> None:
    with unix.listen(room / "s", backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(os.fspath(room / "s"))
        with pytest.raises(NodeFault, match="another service answers here"):
            unix.listen(room / "s")


def test_of_many_at_once_one_gets_it(room: Path) -> None:
    _dead(room / "s")
    start, won, lost = threading.Barrier(8), list[socket.socket](), list[NodeFault]()

    def take() -> None:
        start.wait()
        try:
            won.append(unix.listen(room / "s"))
        except NodeFault as error:
            lost.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_socket_is_left_alone(room: Path, make: object) -> None:
    make(room / "s")  # type: ignore[operator]
    with pytest.raises(NodeFault, match="something here that is no socket; move it away"):
        unix.listen(room / "s")
    assert os.listdir(room) == ["s"]


def test_a_path_that_is_too_long_is_named_with_its_length(room: Path) -> None:
    path = room / ("x" * (108 - len(os.fspath(room)) - 1))
    with pytest.raises(InvalidRequest, match=r"has 107 bytes at most, this one has 108; set a shorter run_dir"):
        unix.listen(path)


def test_the_longest_path_works(room: Path) -> None:
    path = room / ("x" * (107 - len(os.fspath(room)) - 1))
    with unix.listen(path):
        assert unix.answers(path)


def test_a_missing_directory_is_named(room: Path) -> None:
    with pytest.raises(NodeFault, match=r"none/s: the socket cannot be made: No such file or directory"):
        unix.listen(room / "none" / "s")


def test_a_failure_while_binding_leaves_nothing(room: Path) -> None:
    with pytest.raises(ZeroDivisionError), unix.claim(room / "s") as draft:
        _dead(draft)
        raise ZeroDivisionError
    assert os.listdir(room) == []


def test_a_successors_socket_is_not_removed(room: Path) -> None:
    path = room / "s"
    with unix.listen(path):
        mine = path.stat().st_ino
    with unix.listen(path) as _second:
        # The old inode is gone from the disk, and its number may be used again: compare with one that cannot be.
        unix.release(path, mine + 1_000_000)
        assert path.exists()
        unix.release(path, path.stat().st_ino)
        assert not path.exists()
        unix.release(path, mine)


def test_the_peer_is_this_process() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert unix.peer(left) == (os.getpid(), os.geteuid())
