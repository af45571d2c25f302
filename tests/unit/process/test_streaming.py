"""Streams over RPC at the process's side: FIFOs that outlive the daemon, and who may have which id."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from shim.errors import AlreadyExists, InvalidRequest, TimedOut
from shim.process import streaming
from shim.process.reaper import Reaper
from shim.process.spawn import run
from shim.process.stdio import Opener, Streams
from shim.process.streaming import Inlet, Outlet, Rendezvous, id_in

_URL = "ttrpc+unix:///run/unikernel-shim/shim.ttrpc?streaming_id="
_SH = "/bin/sh"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def rendezvous(opener: Opener) -> AsyncIterator[Rendezvous]:
    before = len(os.listdir("/proc/self/fd"))
    yield opener.rendezvous
    opener.rendezvous.forget(("a", "b"), ("in",))
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor is left"


async def outlet(place: streaming.Place) -> Outlet:
    end = await asyncio.wait_for(place.claimed(), 5)
    assert isinstance(end, Outlet)
    return end


async def everything(end: Outlet) -> bytes:
    """All that a process wrote, until its end."""
    found = b""
    while data := await asyncio.wait_for(end.peek(1 << 16), 5):
        end.take(len(data))
        found += data
    return found


@pytest.mark.parametrize(
    ("value", "id"),
    [
        (f"{_URL}c1-stdout", "c1-stdout"),
        ("grpc+vsock://3:1024?streaming_id=x", "x"),
        ("ttrpc+unix:///x?streaming_id=" + "a" * 76 + "-stdout", "a" * 76 + "-stdout"),
        ("/run/fifo/c1-stdout", None),
        ("fifo:///run/x", None),
        ("binary:///bin/log?streaming_id=x", None),
        ("file:///x", None),
    ],
)
def test_which_stream_a_url_names(value: str, id: str | None) -> None:
    assert id_in(value) == id


@pytest.mark.parametrize(
    "value",
    [
        "ttrpc+unix:///x",
        "ttrpc+unix:///x?streaming_id=",
        "ttrpc+unix:///x?streaming_id=a&streaming_id=b",
        f"{_URL}../../etc/passwd",
        f"{_URL}%2e%2e",
        f"{_URL}a/b",
        f"{_URL}.a",
        f"{_URL}a..b",
        f"{_URL}{'a' * 85}",
        f"{_URL}a%00b",
    ],
)
def test_what_names_none_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="stream"):
        id_in(value)


async def test_what_a_process_writes_is_read_to_its_end(opener: Opener, reaper: Reaper, rendezvous: Rendezvous) -> None:
    streams = Streams(stdout=f"{_URL}a", stderr=f"{_URL}b")
    with rendezvous.attach("a") as out, rendezvous.attach("b") as err:
        opened = await opener.all(streams, "c1", "ns")
        script = "seq 1 200000; echo oops >&2"
        work = asyncio.ensure_future(run(reaper, [_SH, "-c", script], timeout=10, fds=opened.child, capture=False))
        await asyncio.sleep(0)
        opened.close()
        first, second = await asyncio.gather(everything(await outlet(out)), everything(await outlet(err)))
        assert (await work).status == 0
    assert first == b"".join(b"%d\n" % number for number in range(1, 200001))
    assert second == b"oops\n"


async def test_output_waits_for_a_reader_and_its_process_with_it(
    opener: Opener, reaper: Reaper, rendezvous: Rendezvous
) -> None:
    streams = Streams(stdout=f"{_URL}a")
    with rendezvous.attach("a"):
        opened = await opener.all(streams, "c1", "ns")
    # That caller is gone; another takes its place later.
    work = asyncio.ensure_future(run(reaper, [_SH, "-c", "seq 1 100000"], timeout=10, fds=opened.child, capture=False))
    await asyncio.sleep(0)
    opened.close()
    await asyncio.sleep(0.2)
    assert not work.done(), "the process must be held up, not killed and not heard of"
    with rendezvous.attach("a") as place:
        end = await outlet(place)
        begun = await end.peek(10)
        end.take(len(begun))
    with rendezvous.attach("a") as place:
        rest = await everything(await outlet(place))
    assert begun + rest == b"".join(b"%d\n" % number for number in range(1, 100001))
    assert (await work).status == 0


async def test_what_was_peeked_at_and_not_taken_comes_again(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a") as place:
        child = rendezvous.outlet("a")
        os.write(child, b"hello")
        end = await outlet(place)
        assert await end.peek(3) == b"hel"
        assert await end.peek(100) == b"hello"
        end.take(2)
        os.close(child)
        assert await everything(end) == b"llo"


async def test_a_reader_that_is_cut_off_loses_nothing(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a") as place:
        child = rendezvous.outlet("a")
        end = await outlet(place)
        reading = asyncio.ensure_future(end.peek(100))
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        os.write(child, b"x")
        assert await asyncio.wait_for(end.peek(100), 5) == b"x"
        os.close(child)


async def test_the_next_daemon_takes_up_what_the_former_left(opener: Opener, tmp_path: Path) -> None:
    directory = tmp_path / "streams"
    former = Rendezvous(directory)
    with former.attach("a"):
        child = former.outlet("a")
    os.write(child, b"before ")
    (directory / "stranger").touch()
    # The former dies without a word: its descriptors are closed by the kernel, its files stay.
    end = former._places["a"].end
    assert isinstance(end, Outlet) and end._source is not None
    following = Rendezvous(directory)
    copy = following.outlet("a", adopted=True)
    os.close(end._source)
    os.close(copy)
    following.sweep()
    assert [path.name for path in directory.iterdir()] == ["a"]
    os.write(child, b"after")
    os.close(child)
    with following.attach("a") as place:
        assert await everything(await outlet(place)) == b"before after"
    following.forget(("a",), ())
    assert list(directory.iterdir()) == []


async def test_the_end_waits_for_the_reader_and_no_longer_than_it_may(rendezvous: Rendezvous) -> None:
    with ExitStack() as held:
        held.enter_context(rendezvous.attach("a"))
        child = rendezvous.outlet("a")
        os.write(child, b"slow")
        begun = asyncio.get_running_loop().time()
        await rendezvous.end(("a",), (), 0.05)
        assert 0.04 < asyncio.get_running_loop().time() - begun < 1
        ending = asyncio.ensure_future(rendezvous.end(("a",), (), 5))
        await asyncio.sleep(0.01)
        assert not ending.done()
        held.close()
        await asyncio.wait_for(ending, 1)
        os.close(child)
    # What was left is there for a later reader, although the process, its FIFO and its writers are gone.
    with rendezvous.attach("a") as place:
        assert await everything(await outlet(place)) == b"slow"


async def test_nobody_reads_so_the_end_waits_for_nobody(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a"):
        os.close(rendezvous.outlet("a"))
    await asyncio.wait_for(rendezvous.end(("a",), (), 60), 1)


async def test_a_process_that_ended_unseen_has_streams_that_have_ended(rendezvous: Rendezvous) -> None:
    """As containerd opens them after it was restarted; it waits for their end."""
    await rendezvous.end(("a",), ("in",), 0)
    with rendezvous.attach("a") as out, rendezvous.attach("in") as input:
        assert await everything(await outlet(out)) == b""
        end = await input.claimed()
        assert isinstance(end, Inlet) and end.over.is_set()
        assert not await end.write(b"x")


async def test_a_writer_left_behind_does_not_keep_the_stream_open(rendezvous: Rendezvous) -> None:
    """A child in the background holds the output of an exec that has ended."""
    with rendezvous.attach("a") as place:
        child = rendezvous.outlet("a")
        os.write(child, b"said")
        reading = asyncio.ensure_future(everything(await outlet(place)))
        await rendezvous.end(("a",), (), 0.02)
        assert await asyncio.wait_for(reading, 5) == b"said"
        os.close(child)


async def test_input_ends_when_the_caller_has_said_its_last_and_closeio_was_called(
    opener: Opener, reaper: Reaper, rendezvous: Rendezvous
) -> None:
    with rendezvous.attach("a") as out, rendezvous.attach("in") as place:
        opened = await opener.all(Streams(stdin=f"{_URL}in", stdout=f"{_URL}a"), "c1", "ns")
        work = asyncio.ensure_future(run(reaper, ["/bin/cat"], timeout=10, fds=opened.child, capture=False))
        await asyncio.sleep(0)
        opened.close_child()
        end = await place.claimed()
        assert isinstance(end, Inlet)
        reading = asyncio.ensure_future(everything(await outlet(out)))
        data = os.urandom(1 << 20)
        assert await asyncio.wait_for(end.write(data), 10)
        end.close()
        await asyncio.sleep(0.05)
        assert not work.done()
        opened.close_stdin()
        assert await reading == data
        assert (await work).status == 0


async def test_input_waits_for_a_process_that_reads_nothing(opener: Opener, rendezvous: Rendezvous) -> None:
    with rendezvous.attach("in") as place:
        opened = await opener.all(Streams(stdin=f"{_URL}in"), "c1", "ns")
        end = await place.claimed()
        assert isinstance(end, Inlet)
        writing = asyncio.ensure_future(end.write(bytes(1 << 20)))
        await asyncio.sleep(0.05)
        assert not writing.done()
        opened.close()  # and then it is gone
        assert await asyncio.wait_for(writing, 5) is False
        assert end.over.is_set()


@pytest.mark.parametrize("streams", [Streams(stdout=f"{_URL}a"), Streams(stdin=f"{_URL}in")])
async def test_a_stream_that_nobody_opened(opener: Opener, rendezvous: Rendezvous, streams: Streams) -> None:
    with pytest.raises(InvalidRequest, match="no stream of this id is open; open it before"):
        await opener.all(streams, "c1", "ns")


async def test_one_caller_and_one_process_at_a_time(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a"):
        with pytest.raises(AlreadyExists, match="the stream is open"), rendezvous.attach("a"):
            pass
        os.close(rendezvous.outlet("a"))
        with pytest.raises(AlreadyExists, match="another process"):
            rendezvous.outlet("a")
        with pytest.raises(AlreadyExists, match="another process"):
            rendezvous.inlet("a")


async def test_a_stream_that_is_closed_before_it_was_claimed_is_forgotten(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a"):
        pass
    assert rendezvous._places == {}


async def test_a_stream_that_nobody_claims_is_given_up(rendezvous: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PATIENCE", 0.02)
    with pytest.raises(TimedOut, match="no process was created"), rendezvous.attach("a") as place:
        await place.claimed()
    assert rendezvous._places == {}


async def test_a_caller_that_waits_for_a_container_that_is_removed_is_told(rendezvous: Rendezvous) -> None:
    with rendezvous.attach("a") as place:
        rendezvous.forget(("a",), ())
        assert await everything(await outlet(place)) == b""
        with rendezvous.attach("a") as following:  # the id is free, and the former caller's end takes nothing along
            assert following is not place
            os.close(rendezvous.outlet("a"))
    with rendezvous.attach("a") as again:
        assert again is following
