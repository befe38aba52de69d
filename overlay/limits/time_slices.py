"""Shares the Trio thread among the sources for whom work is done on it.

Rules:
1. One slice runs at a time, whoever's it is, and then the loop goes round: others wait for one slice at most.
2. A source that has worked rests for as long before its next slice, so that it takes half of the thread at most. Where
   the work's time is known before, it is charged then; else what it took.
3. Sources that wait get their slices in turn.

What serves a call takes slices of its caller's by `turn`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Final

import trio
from cachetools import LRUCache

_SHORT: Final = 0.001  # seconds after which no rest is needed
_AT_ONCE: Final = 32  # steps in one slice
_RESTING: Final = 4096  # sources that are remembered to be resting

_loop: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("the lock of the slice that runs")


class TimeSlices:
    """Work within a slice mustn't wait for anything."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[trio.Lock, int]] = {}
        self._rest: LRUCache[str, float] = LRUCache(_RESTING)  # until when, in Trio's time

    @asynccontextmanager
    async def slice(self, source: str, cost: float | None = None) -> AsyncIterator[None]:
        """Runs the block when no other slice runs, and the source has rested.

        `cost`: seconds that the work takes at most; None where only its end tells.
        """
        lock, waiting = self._locks.get(source) or (trio.Lock(), 0)
        self._locks[source] = lock, waiting + 1
        try:
            async with lock:
                if (until := self._rest.get(source, 0.0)) > trio.current_time():
                    await trio.sleep_until(until)
                async with _lock_of_loop():
                    began = trio.current_time()
                    if cost is not None:
                        self._have_rest(source, cost)
                    yield
                    if cost is None:
                        self._have_rest(source, trio.current_time() - began)
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

    def charge(self, source: str, seconds: float) -> None:
        """Let a source rest for longer before its next slice: for work that follows on one, outside of slices."""
        self._rest[source] = max(self._rest.get(source, 0.0), trio.current_time()) + seconds

    def _have_rest(self, source: str, seconds: float) -> None:
        if seconds > _SHORT:
            self._rest[source] = trio.current_time() + seconds


def _lock_of_loop() -> trio.Lock:
    try:
        return _loop.get()
    except LookupError:
        lock = trio.Lock()
        _loop.set(lock)
        return lock


_served: ContextVar[tuple[TimeSlices, str]] = ContextVar("for whom this task works")


def work_for(source: str, time_slices: TimeSlices | None = None) -> None:
    """From now on this task, and those that it starts, work for `source`: what `turn` takes is of its slices.

    `time_slices`: those of the peer that this task is of; None for the same as before.
    """
    if time_slices is None:
        served = _served.get(None)
        if served is None:
            return
        time_slices = served[0]
    _served.set((time_slices, source))


def served() -> tuple[TimeSlices, str] | None:
    """For whom this task works, and out of whose slices; None when for nobody but this peer."""
    return _served.get(None)


async def turn(cost: float) -> None:
    """Let others have their turn before a part of longer work, and charge that to whom this task serves, if anybody.

    `cost`: seconds that the part takes at most: what follows until the task waits again.
    """
    served = _served.get(None)
    if served is None:
        await trio.lowlevel.checkpoint()
        return
    time_slices, source = served
    async with time_slices.slice(source, cost):
        pass  # the next slice is another's, and begins when the loop has gone round
