"""Runs served functions: async ones on the Trio thread, sync ones in threads, generators result by result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from inspect import isawaitable, iscoroutine
from typing import Any, Final

import msgspec
import trio

from aqua_compat.rpc.dispatch import Function
from overlay.tasks import in_thread

NO_MORE: Final = object()
_CLOSING: Final = 1.0  # seconds for a sync generator to close


async def result_of(function: Function, arguments: list[object], running: trio.CapacityLimiter) -> object:
    """Runs a function once `running` has a place; its result as CBOR carries it. Raises what the function raises."""
    if function.is_async:
        return sendable(await _in_place(lambda: function.call(*arguments), running))
    # Abandoned at the deadline: its thread ends when it ends, and counts until then.
    result = await in_thread(function.call, *arguments, limiter=running)
    if isawaitable(result):  # such as of a lambda that calls an async function
        awaitable = result
        try:
            result = await _in_place(lambda: awaitable, running)
        finally:
            if iscoroutine(awaitable):
                awaitable.close()  # where its place never came
    return sendable(result)


async def _in_place(call: Callable[[], Awaitable[object]], running: trio.CapacityLimiter) -> object:
    holder = object()  # not the task: a function may call another one of its service
    try:
        running.acquire_on_behalf_of_nowait(holder)  # mostly free: no checkpoint is needed
    except trio.WouldBlock:
        await running.acquire_on_behalf_of(holder)
    try:
        return await call()
    finally:
        running.release_on_behalf_of(holder)


@asynccontextmanager
async def results_of(
    function: Function, arguments: list[object], running: trio.CapacityLimiter, threads: trio.CapacityLimiter
) -> AsyncIterator[AsyncIterator[object]]:
    """Runs a generator and gives what it yields, one by one; of a plain function its only result.

    Waits for a place of `running` first. The generator is closed in the end, in the task that used it. `threads` bounds
    the threads of sync generators.
    """
    if not function.is_generator:
        async with aclosing(_only(function, arguments, running)) as result:
            yield result
        return
    holder = object()
    await running.acquire_on_behalf_of(holder)
    try:
        generator = function.call(*arguments)
        async with aclosing(generator if function.is_async else _in_threads(generator, threads)) as results:
            yield results
    finally:
        running.release_on_behalf_of(holder)


async def next_of(results: AsyncIterator[object]) -> object:
    """The next result as CBOR carries it, `NO_MORE` at the end. Raises whatever the function raises."""
    try:
        return sendable(await anext(results))
    except StopAsyncIteration:
        return NO_MORE


def sendable(result: object) -> object:
    """A result, or arguments, as CBOR carries it. Raises TypeError for what it can't."""
    return msgspec.to_builtins(result, builtin_types=(bytes, bytearray))


async def _only(
    function: Function, arguments: list[object], running: trio.CapacityLimiter
) -> AsyncGenerator[object, None]:
    yield await result_of(function, arguments, running)


async def _in_threads(generator: Iterator[Any], threads: trio.CapacityLimiter) -> AsyncGenerator[object, None]:
    """A generator that may block, asked for each result in a thread."""
    abandoned = False
    try:
        while True:
            abandoned = True  # when cancelled meanwhile, the thread still uses it
            result = await in_thread(next, generator, NO_MORE, limiter=threads)
            abandoned = False
            if result is NO_MORE:
                return
            yield result
    finally:
        close = getattr(generator, "close", None)
        if close is not None and not abandoned:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING):
                await in_thread(close, limiter=threads)
