"""Timing calls: one at a time and many in flight, with their percentiles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

Call = Callable[[int], Awaitable[bool]]
"""Makes the n-th call; whether it succeeded."""


class Timing(NamedTuple):
    """Milliseconds per call, and calls per second, of those that succeeded."""

    p50: float
    p99: float
    per_second: float
    failed: int

    def __str__(self) -> str:
        failed = f"  {self.failed} FAILED" if self.failed else ""
        return f"p50 {self.p50:8.2f} ms  p99 {self.p99:8.2f} ms  {self.per_second:8.0f} /s{failed}"


class _Measurement:
    """Makes `count` calls, as many at a time as tasks run `work`."""

    def __init__(self, call: Call, count: int) -> None:
        self._call = call
        self._numbers = iter(range(count))
        self._durations: list[float] = []
        self._failed = 0
        self._started = time.perf_counter()

    async def work(self) -> None:
        for number in self._numbers:
            before = time.perf_counter()
            succeeded = await self._call(number)
            self._durations.append(time.perf_counter() - before)
            self._failed += not succeeded

    def timing(self) -> Timing:
        elapsed = time.perf_counter() - self._started
        durations = sorted(self._durations)
        return Timing(
            p50=durations[len(durations) // 2] * 1000,
            p99=durations[min(int(len(durations) * 0.99), len(durations) - 1)] * 1000,
            per_second=(len(durations) - self._failed) / elapsed,
            failed=self._failed,
        )


async def timed(call: Call, count: int, in_flight: int) -> Timing:
    """Makes `count` calls, `in_flight` at a time, on Trio."""
    measurement = _Measurement(call, count)
    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(measurement.work)
    return measurement.timing()


async def timed_on_asyncio(call: Call, count: int, in_flight: int) -> Timing:
    """The same on asyncio."""
    measurement = _Measurement(call, count)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(measurement.work())
    return measurement.timing()
