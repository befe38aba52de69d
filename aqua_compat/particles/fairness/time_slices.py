"""Shares the Trio thread among the sources for whom work is done on it.

Each source works in one slice at a time and then pauses as long as it worked. So nobody who sends scripts takes more
than half of the node's own thread, and others get it every few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

import trio

_SHORT: Final = 0.001  # seconds after which no pause is needed
_AT_ONCE: Final = 32  # steps in one slice


class TimeSlices:
    """Work within a slice mustn't wait for anything."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def slice(self, source: str) -> AsyncIterator[None]:
        """Runs the block when no other slice of the source runs, and pauses after it."""
        lock, waiting = self._locks.get(source) or (trio.Lock(), 0)
        self._locks[source] = lock, waiting + 1
        try:
            async with lock:
                began = time.perf_counter()
                yield
                spent = time.perf_counter() - began
                if spent > _SHORT:
                    await trio.sleep(spent)
        finally:
            lock, waiting = self._locks[source]
            if waiting > 1:
                self._locks[source] = lock, waiting - 1
            else:
                del self._locks[source]

    async def run(self, source: str, work: Iterator[object]) -> None:
        """Does work of many small steps, one for each element that `work` yields, some of them in each slice."""
        done = _AT_ONCE
        while done == _AT_ONCE:
            async with self.slice(source):
                done = sum(1 for _ in islice(work, _AT_ONCE))
