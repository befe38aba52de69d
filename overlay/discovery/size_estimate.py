"""How many members the network has, estimated from how near together they are."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from overlay.discovery.keyspace import POSITION_BITS

REGIONS: Final = 9
"""Regions whose median is taken, at least: one that is ground full of ids, or emptied, decides nothing."""
MOST_REGIONS: Final = 18
"""The latest that are remembered: a network that grew is seen to have."""


class SizeEstimate:
    """The median of what each looked-up region says: with the n-th nearest at distance d, (n - 1) * 2**256 / d."""

    def __init__(self) -> None:
        self._estimates: deque[float] = deque(maxlen=MOST_REGIONS)
        self._all: int | None = None

    def note(self, distances: int, farthest: int) -> None:
        """A lookup around a random position found `distances` members, the farthest of them at distance `farthest`."""
        self._all = None
        if distances > 1 and farthest > 0:
            self._estimates.append((distances - 1) * 2.0**POSITION_BITS / farthest)

    def note_all(self, members: int) -> None:
        """Takes the network's size as known, since all members are: so many, this one counted."""
        self._all = members
        self._estimates.clear()

    @property
    def missing(self) -> int:
        """Regions still to be seen before there is an estimate."""
        return max(REGIONS - len(self._estimates), 0)

    @property
    def size(self) -> float | None:
        """The estimate; None before enough regions were seen."""
        if self._all is not None:
            return float(self._all)
        return median(self._estimates) if len(self._estimates) >= REGIONS else None
