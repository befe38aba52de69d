"""Peers that couldn't be dialled, and until when each is left alone.

One failed dial says little: the peer may have had no place just then, or the old connection to it was ending. So a peer
rests shortly after its first failure, and twice as long after each that follows a rest. Failures within one rest count
as one, however many callers try. Whoever is linked again begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachetools import LRUCache
from msgspec import Struct

_MOST_DOUBLINGS: Final = 30


class _Rest(Struct, frozen=True):
    failures: int
    until: float


class DialFailures:
    """Bounded: of `most` peers, those that failed last."""

    def __init__(self, clock: Callable[[], float], *, first: float, longest: float, most: int) -> None:
        """`clock`: seconds of any clock that doesn't go back. `first`, `longest`: seconds of rest."""
        self._clock = clock
        self._first = first
        self._longest = longest
        self._rests: LRUCache[str, _Rest] = LRUCache(most)

    def note(self, peer_id: str) -> None:
        """A dial of the peer failed."""
        now, known = self._clock(), self._rests.get(peer_id)
        failures = 0 if known is None else known.failures
        if known is None or known.until <= now:
            failures += 1
        seconds = min(self._first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self._longest)
        self._rests[peer_id] = _Rest(failures, now + seconds)

    def forget(self, peer_id: str) -> None:
        """The peer is linked."""
        self._rests.pop(peer_id, None)

    def rests_until(self, peer_id: str) -> float:
        """When the peer may be tried again; 0 for one that didn't fail."""
        rest = self._rests.get(peer_id)
        return 0.0 if rest is None else rest.until

    def is_resting(self, peer_id: str) -> bool:
        """Whether it failed just lately."""
        return self._clock() < self.rests_until(peer_id)
