"""Timing calls: one at a time and many in flight, with their percentiles."""

from __future__ import annotations

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


async def timed(call: Call, count: int, in_flight: int) -> Timing:
    """Makes `count` calls, `in_flight` at a time."""
    durations: list[float] = []
    failed = 0
    numbers = iter(range(count))

    async def work() -> None:
        nonlocal failed
        for number in numbers:
            before = time.perf_counter()
            succeeded = await call(number)
            durations.append(time.perf_counter() - before)
            failed += not succeeded

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(work)
    elapsed = time.perf_counter() - started
    durations.sort()
    return Timing(
        p50=durations[len(durations) // 2] * 1000,
        p99=durations[min(int(len(durations) * 0.99), len(durations) - 1)] * 1000,
        per_second=(count - failed) / elapsed,
        failed=failed,
    )
