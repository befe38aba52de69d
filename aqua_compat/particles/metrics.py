"""What the door for Aqua has done and refused, counted since the node's start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Metrics:
    """Counts by short names; `gauge` adds what is so at the moment of asking."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, Callable[[], int]] = {}
        self._steps = 0
        self._seconds = 0.0
        self._longest = 0.0

    def count(self, what: str, number: int = 1) -> None:
        self._counts[what] += number

    def drop(self, reason: str) -> None:
        """One particle less, and why."""
        self._counts[f"dropped: {reason}"] += 1

    def note_step(self, seconds: float) -> None:
        self._steps += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        self._gauges[name] = value

    def snapshot(self) -> dict[str, float]:
        """All of it; `step ms` is the average."""
        average = 1000 * self._seconds / self._steps if self._steps else 0.0
        return {
            "steps": self._steps,
            "step ms": round(average, 3),
            "longest step ms": round(1000 * self._longest, 3),
            **{name: value() for name, value in self._gauges.items()},
            **dict(sorted(self._counts.items())),
        }
