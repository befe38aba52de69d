"""When each of many things is due next; setting a time later costs nothing. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """One time for each key. It holds an entry in a heap for each, and a few more where times were set earlier."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._entered: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def set(self, key: Key, at: float) -> None:
        """A key is due then; infinity for never."""
        if at == math.inf:
            self._at.pop(key, None)
            return
        self._at[key] = at
        if at < self._entered.get(key, math.inf):
            self._enter(key, at)

    @property
    def next_at(self) -> float:
        """When to look next; it may be too early."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[Key]:
        """The keys that are due, each once; it has to be set again."""
        found: list[Key] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._entered.get(key) != at:
                continue  # it was entered again, for earlier
            del self._entered[key]
            due = self._at.get(key, math.inf)
            if due <= now:
                del self._at[key]
                found.append(key)
            elif due != math.inf:
                self._enter(key, due)
        return found

    def _enter(self, key: Key, at: float) -> None:
        self._entered[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
