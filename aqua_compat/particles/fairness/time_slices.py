"""Work for scripts on the Trio thread: of each source one piece at a time, with a rest as long as it took.

So whoever sends scripts can't take more than half of the node's own thread, and others get it every few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

import trio

_SHORT: Final = 0.001  # seconds that need no rest
_AT_ONCE: Final = 32  # steps of longer work


class TimeSlices:
    """Turns of sources; work within one mustn't wait for anything."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[trio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, source: str) -> AsyncIterator[None]:
        """It is the source's turn within the block."""
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
        """Work of many small steps, one per element, some at each turn of the source."""
        done = _AT_ONCE
        while done == _AT_ONCE:
            async with self.turn(source):
                done = sum(1 for _ in islice(work, _AT_ONCE))
