"""Token buckets: so much per second on average, so much at once, for each source."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from cachetools import LRUCache

_TRACKED: Final = 4096


class TokenBuckets:
    """One bucket for each source, such as a peer; only the 4,096 sources that took last are remembered.

    Pure: the time comes in as an argument, in seconds of any clock that the caller keeps to. A clock that goes back
    gives and takes nothing.
    """

    def __init__(self, rate: float, burst: float, *, debt: float = 0.0) -> None:
        """`rate`: tokens per second. `burst`: tokens of a full bucket, with which every source begins.

        `debt`: tokens that refused attempts may cost beyond an empty bucket; 0 makes refusals free. With a debt, a
        source that doesn't stop asking isn't served before it has paused.
        """
        self._rate = rate
        self._burst = burst
        self._most_spent = burst + debt
        self._spent: LRUCache[Hashable, tuple[float, float]] = LRUCache(_TRACKED)  # tokens spent, and when

    def take(self, source: Hashable, now: float, amount: float = 1.0) -> bool:
        """Take so many tokens of a source; False when it has fewer."""
        spent, since = self._spent_until(source, now)
        is_granted = spent + amount <= self._burst
        most = spent + amount
        self._spent[source] = (most if is_granted else min(most, max(self._most_spent, spent))), since
        return is_granted

    def has(self, source: Hashable, now: float, amount: float = 1.0) -> bool:
        """Whether a source could take so many tokens."""
        return self._spent_until(source, now)[0] + amount <= self._burst

    def give_back(self, source: Hashable, now: float, amount: float = 1.0) -> None:
        """Undo a `take` that was granted."""
        spent, since = self._spent_until(source, now)
        self._spent[source] = max(spent - amount, 0.0), since

    def wait(self, source: Hashable, now: float, amount: float = 1.0) -> float:
        """Seconds until a source has so many tokens, if it takes none meanwhile; 0 when it has them."""
        return max(self._spent_until(source, now)[0] + amount - self._burst, 0.0) / self._rate

    def debt(self, source: Hashable, now: float) -> float:
        """Seconds until a source has paid back what it took beyond its bucket; 0 when it owes nothing."""
        return max(self._spent_until(source, now)[0] - self._burst, 0.0) / self._rate

    def _spent_until(self, source: Hashable, now: float) -> tuple[float, float]:
        spent, since = self._spent.get(source, (0.0, now))
        return max(spent - max(now - since, 0.0) * self._rate, 0.0), max(now, since)
