"""A feed's listeners: each has what it was told in order, or is told how much it missed; none holds up another."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.feed import Feed, Listener, Missed


async def drained(listener: Listener[int]) -> list[int | Missed | None]:
    found: list[int | Missed | None] = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                found.append(await listener.next())
        except TimeoutError:
            return found
        if found[-1] is None:
            return found


async def test_each_listener_has_all_in_order() -> None:
    feed: Feed[int] = Feed(10)
    with feed.listen() as one, feed.listen([7, 8]) as two:
        feed.tell(1)
        feed.tell(2)
        assert await drained(one) == [1, 2]
        assert await drained(two) == [7, 8, 1, 2]
    feed.tell(3)  # to nobody


async def test_what_does_not_fit_is_counted_where_it_would_have_been() -> None:
    feed: Feed[int] = Feed(2)
    with feed.listen() as slow, feed.listen() as quick:
        for number in range(5):
            feed.tell(number)
            assert await quick.next() == number
        assert [await slow.next(), await slow.next()] == [0, 1]
        feed.tell(5)
        assert await drained(slow) == [Missed(3), 5]


async def test_a_listener_that_waits_hears_at_once_and_of_the_end() -> None:
    feed: Feed[int] = Feed(2)
    with feed.listen() as listener:
        waiting = asyncio.ensure_future(listener.next())
        await asyncio.sleep(0)
        feed.tell(1)
        assert await waiting == 1
        feed.tell(2)
        feed.close()
        assert await drained(listener) == [2, None]
    with feed.listen() as late:
        assert await late.next() is None


async def test_one_that_was_cut_off_loses_nothing() -> None:
    feed: Feed[int] = Feed(2)
    with feed.listen() as listener:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.next(), 0.001)
        feed.tell(1)
        assert await listener.next() == 1


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=6), st.none()), max_size=60))
def test_no_queue_outgrows_its_bound_and_nothing_goes_uncounted(steps: list[bytes | None]) -> None:
    """Bytes are told, None is a read: what was read and what was missed are all that was told."""

    async def run() -> None:
        feed: Feed[bytes] = Feed(10, len)
        told = read = missed = 0
        with feed.listen() as listener:

            async def take() -> None:
                nonlocal read, missed
                match await listener.next():
                    case bytes() as data:
                        read += len(data)
                    case Missed(count):
                        missed += count

            for step in steps:
                if step is not None:
                    feed.tell(step)
                    told += len(step)
                elif read + missed < told:
                    await take()
                assert told - read - missed >= 0
            feed.close()
            while read + missed < told:
                await take()
            assert await listener.next() is None

    asyncio.run(run())
