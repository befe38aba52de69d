"""Shares the Trio thread among the sources for whom work is done on it.

Rules:
1. One slice runs at a time, whoever's it is, and then the loop goes round: others wait for one slice at most.
2. A source that has worked rests for as long before its next slice, so that it takes half of the thread at most. Where
   the work's time is known before, it is charged then; else what it took.
3. Sources that wait get their slices in turn.
4. Of work whose time nobody knows, such as serving a call, each source begins one each time that the loop goes round,
   or `ALONE` while no other source has begun any in the last second: a source with hundreds of calls doesn't keep
   another's one waiting for all of them.

What serves a call takes slices of its caller's by `turn`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Final

import trio
from cachetools import LRUCache, TTLCache

from overlay.limits.lock_of_run import LockOfRun

_SHORT: Final = 0.001  # seconds after which no rest is needed
_AT_ONCE: Final = 32  # steps in one slice
_RESTING: Final = 4096  # sources that are remembered to be resting
ALONE: Final = 16  # works of the only source that begin before the loop goes round: their answers share frames
_BUSY_FOR: Final = 1.0  # seconds for which a source that began something counts as another one

_slice = LockOfRun("the slice that runs")


class TimeSlices:
    """Work within a slice mustn't wait for anything."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[trio.Lock, int]] = {}
        self._rest: LRUCache[str, float] = LRUCache(_RESTING)  # until when, in Trio's time
        self._to_begin: dict[str, dict[trio.lowlevel.Task, None]] = {}  # tasks that wait, by their sources
        self._begun: Counter[str] = Counter()  # since the loop went round
        self._busy: TTLCache[str, None] = TTLCache(_RESTING, _BUSY_FOR, timer=trio.current_time)

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
                async with _slice.lock:
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

    async def begin(self, source: str) -> None:
        """Waits until work of this source may begin (rule 4). Where it may at once, this is no checkpoint."""
        if source not in self._to_begin and self._may_begin(source):
            self._note_begun(source)
            return
        task = trio.lowlevel.current_task()
        self._to_begin.setdefault(source, {})[task] = None

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(source, task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _may_begin(self, source: str) -> bool:
        begun = self._begun[source]
        if not begun:
            return True
        others = len(self._busy) - (source in self._busy)
        return begun < (1 if others else ALONE)

    def _note_begun(self, source: str) -> None:
        if not self._begun:
            trio.lowlevel.current_trio_token().run_sync_soon(self._go_round)
        self._begun[source] += 1
        self._busy[source] = None

    def _go_round(self) -> None:
        self._begun.clear()
        for source in list(self._to_begin):
            while source in self._to_begin and self._may_begin(source):
                task = next(iter(self._to_begin[source]))
                self._leave(source, task)
                self._note_begun(source)
                trio.lowlevel.reschedule(task)

    def _leave(self, source: str, task: trio.lowlevel.Task) -> None:
        waiting = self._to_begin[source]
        del waiting[task]
        if not waiting:
            del self._to_begin[source]

    def _have_rest(self, source: str, seconds: float) -> None:
        if seconds > _SHORT:
            self._rest[source] = trio.current_time() + seconds


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
