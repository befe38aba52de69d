"""How late Trio's loop is: for how long whatever happens, or is due, has to wait until the loop sees to it.

Each turn of the loop is measured, so that no stall is missed: the time by which it woke too late, and what all of its
tasks took together. That includes collecting garbage, waiting for a thread that holds the interpreter, and other
processes that took the machine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

_SLICE: Final = 5.0  # seconds of which figures are kept together
_SLICES: Final = 12  # what is told is of the last minute
_BUCKETS: Final = 32  # the lag in microseconds, by powers of two: up to half an hour


class LoopLagStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by which turns of the loop were late, in the last minute."""

    max: float
    """The worst."""
    p99: float
    """Of 100 turns 99 were as good or better; up to twice too much."""


class _Slice(msgspec.Struct):
    """The figures of `_SLICE` seconds."""

    number: int
    worst: float
    counts: list[int]


class LagHistory:
    """The lags of the last minute, as a histogram; some kilobytes, however many there are. Pure."""

    def __init__(self) -> None:
        self._slices: deque[_Slice] = deque([_Slice(0, 0.0, [0] * _BUCKETS)], maxlen=_SLICES)

    def note(self, lag: float, now: float) -> None:
        """One turn was late by `lag` seconds. `now`: seconds of any clock that doesn't go back."""
        latest = self._slices[-1]
        if latest.number != now // _SLICE:
            latest = _Slice(int(now // _SLICE), 0.0, [0] * _BUCKETS)
            self._slices.append(latest)
        latest.counts[min(int(lag * 1e6).bit_length(), _BUCKETS - 1)] += 1
        latest.worst = max(latest.worst, lag)

    def statistics(self, now: float) -> LoopLagStatistics:
        """How late the loop was, as of now; zeros when nothing was noted."""
        recent = [part for part in self._slices if part.number > now // _SLICE - _SLICES]
        worst = max((part.worst for part in recent), default=0.0)
        counts = [sum(bucket) for bucket in zip(*(part.counts for part in recent), strict=True)]
        left = sum(counts) / 100  # turns that may be worse
        for bucket in range(len(counts) - 1, -1, -1):
            left -= counts[bucket]
            if left < 0:
                return LoopLagStatistics(max=worst, p99=min(2**bucket / 1e6, worst))
        return LoopLagStatistics(max=worst, p99=0.0)


class LoopLag(trio.abc.Instrument):
    """Measures the loop that runs, while `measured` is entered. A turn costs about half a microsecond more."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock`: seconds; of the thread's CPU time, it tells what the tasks took, whatever else the machine does."""
        self._clock = clock
        self._history = LagHistory()
        self._since = 0.0  # when this turn began, or had to begin
        self._due = 0.0  # when the loop means to wake, if nothing happens before

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure until the block ends; within a task of the loop."""
        self._since = self._clock()
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def statistics(self) -> LoopLagStatistics:
        """How late the loop was in the last minute."""
        return self._history.statistics(self._clock())

    def before_io_wait(self, timeout: float) -> None:
        """The tasks of a turn have run."""
        now = self._clock()
        self._history.note(now - self._since, now)
        self._due = now + timeout

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        """The next turn begins."""
        self._since = min(self._clock(), self._due)
