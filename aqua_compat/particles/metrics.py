"""Counts of what was done and refused for Aqua since the node's start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Metrics:
    """Counts by short names, and gauges that are read when somebody asks."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, Callable[[], int]] = {}
        self._steps = 0
        self._seconds = 0.0
        self._longest = 0.0

    def count(self, what: str, number: int = 1) -> None:
        """Adds to a count."""
        self._counts[what] += number

    def drop(self, reason: str) -> None:
        """Counts a particle that was dropped, by the reason."""
        self._counts[f"dropped: {reason}"] += 1

    def note_step(self, seconds: float) -> None:
        """Adds a step of the interpreter to the times of steps."""
        self._steps += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        """Adds a figure that `value` tells whenever somebody asks."""
        self._gauges[name] = value

    def snapshot(self) -> dict[str, float]:
        """All counts and gauges by name; `step ms` is the average of all steps."""
        average = 1000 * self._seconds / self._steps if self._steps else 0.0
        return {
            "steps": self._steps,
            "step ms": round(average, 3),
            "longest step ms": round(1000 * self._longest, 3),
            **{name: value() for name, value in self._gauges.items()},
            **dict(sorted(self._counts.items())),
        }
