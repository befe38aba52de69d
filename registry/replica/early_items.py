"""What came too early: dated further ahead than is tolerated, and taken once its time has come.

Rules:
1. An item is kept until it may be taken, if that is within `LONGEST` seconds. Asking others for it then would bring
   nothing: they refused it as well.
2. `MOST` items are kept at most, `MOST_OF_ONE` of each peer that brought them, and `MOST_BYTES` of all. What doesn't
   find room, or is further ahead, comes with the hourly comparison.
3. When its time has come it counts as if it had come then, from the same peer: nothing of it was checked before.

Pure: times in seconds of the monotonic clock come in.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, NamedTuple

from registry.protocol.messages import Item

LONGEST: Final = 120.0  # seconds
MOST: Final = 256
MOST_OF_ONE: Final = 16
MOST_BYTES: Final = 1024 * 1024


class EarlyItem(NamedTuple):
    """An item, the peer that brought it, and whether its state may outlive its key (`Ingest.store`)."""

    item: Item
    source: str
    keyless: bool


class _Kept(NamedTuple):
    due_at: float
    early: EarlyItem
    size: int


class EarlyItems:
    """The items that wait."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}  # by the digests of the items
        self._of: Counter[str] = Counter()  # by who brought them
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, early: EarlyItem, now: float, taken_in: float) -> bool:
        """Keeps an item that may be taken in so many seconds; whether there was room."""
        if taken_in > LONGEST or len(self._kept) >= MOST or self._of[early.source] >= MOST_OF_ONE:
            return False
        digest, size = early.item.digest(), early.item.size()
        if digest in self._kept:
            return True
        if self._bytes + size > MOST_BYTES:
            return False
        self._kept[digest] = _Kept(now + taken_in, early, size)
        self._of[early.source] += 1
        self._bytes += size
        return True

    def due(self, now: float) -> list[EarlyItem]:
        """The items whose time has come; they are let go."""
        found = [digest for digest, kept in self._kept.items() if kept.due_at <= now]
        return [self._let_go(digest) for digest in found]

    def _let_go(self, digest: bytes) -> EarlyItem:
        kept = self._kept.pop(digest)
        self._bytes -= kept.size
        self._of[kept.early.source] -= 1
        if not self._of[kept.early.source]:
            del self._of[kept.early.source]
        return kept.early

    def wakes_at(self) -> float:
        """When the next one is due; infinite when none waits."""
        return min((kept.due_at for kept in self._kept.values()), default=math.inf)
