"""Work that a cancelled caller does not leave half way: what runs in a thread cannot be stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, but a caller that is cancelled goes on only once the thread is done: whoever then cleans up
    does not race with it."""
    return await to_its_end(asyncio.to_thread(function, *args, **kwargs))


async def to_its_end(coroutine: Coroutine[object, object, T]) -> T:
    """What `coroutine` returns; a caller that is cancelled goes on only once it is done."""
    work = asyncio.ensure_future(coroutine)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await settled(work)
        raise


async def settled(work: asyncio.Future[T]) -> None:
    """Wait until `work` is done, through any number of cancellations of the caller; its outcome is not raised."""
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            continue
    if not work.cancelled():
        work.exception()


def in_new_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Run `work` in a thread `name` that exists for nothing else; the future gets its result or error.

    For what may wait long for others, and so must not take one of the pool's few threads.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T is None

    def body() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop was closed meanwhile: nobody is left to tell
            return

    threading.Thread(target=body, name=name, daemon=True).start()
    return future
