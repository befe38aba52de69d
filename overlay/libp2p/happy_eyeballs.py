"""Several attempts to reach somebody, of which the first that leads there counts (happy eyeballs, RFC 8305)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio

HEAD_START: Final = 0.25
"""Seconds that an attempt has before the next begins beside it."""

Reached = TypeVar("Reached")


async def first_reached(attempts: Sequence[Callable[[], Awaitable[Reached | None]]]) -> Reached | None:
    """What the first attempt returned that returned anything; None where none did. The others are cancelled.

    The next attempt begins as soon as one has failed, or had `HEAD_START`. Attempts don't raise.
    """
    found: list[Reached] = []

    async def attempt(make: Callable[[], Awaitable[Reached | None]], failed: trio.Event) -> None:
        reached = await make()
        if reached is None:
            failed.set()
        else:
            found.append(reached)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for make in attempts:
            failed = trio.Event()
            nursery.start_soon(attempt, make, failed)
            with trio.move_on_after(HEAD_START):
                await failed.wait()
    return found[0] if found else None
