"""Bounds how much of what peers sent is in memory decoded at once, counted in items.

A body takes few bytes as it travels, and up to 70 times as many once it is decoded: an empty list is one byte, and 64
then. So what is being served is counted in items too, as the decoder does.

Rules:
1. A body is decoded once its source has room for as many items as it may have: one for each byte, or `MAX_ITEMS`.
   Until then it waits as bytes, which are bounded elsewhere.
2. From then on it counts as the items that it has, until its request was answered.
3. All sources together have a bound too, by the rules of `overlay.limits.fair_quota`: the source that has most gives
   way, or isn't let in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overlay.limits.decoder import MAX_ITEMS
from overlay.limits.fair_quota import FairQuota, Holding
from overlay.tasks import Broadcast


class TooManyItems(Exception):
    """All sources together have as much as they may, and this one has most of it."""


class DecodedBody:
    """The items of one body. Made by `DecodedItems.opened`."""

    def __init__(self, items: DecodedItems, holding: Holding) -> None:
        self._items = items
        self._holding = holding

    async def wait_for_room(self, encoded_bytes: int) -> None:
        """Wait until a body of so many bytes may be decoded (rule 1). Where it may at once, this is no checkpoint."""
        while not self.fits(encoded_bytes):
            await self._items.given_back.wait()

    def fits(self, encoded_bytes: int) -> bool:
        """Whether a body of so many bytes may be decoded now."""
        return self._items.fits(self._holding.source, min(encoded_bytes, MAX_ITEMS))

    def count(self, items: int) -> None:
        """Count what was decoded (rule 2). Raises `TooManyItems`: then it has to be dropped."""
        if not self._holding.take(items):
            raise TooManyItems


class DecodedItems:
    """What all sources have decoded of theirs at the moment."""

    def __init__(self, most: int, most_per_source: int) -> None:
        """In items; either is as many as one body may have at least."""
        self._quota = FairQuota(max(most, MAX_ITEMS), max(most_per_source, MAX_ITEMS))
        self.given_back = Broadcast()
        """Is sent whenever some of them are free again."""

    @property
    def total(self) -> int:
        """Items of all sources."""
        return self._quota.total

    def fits(self, source: str, items: int) -> bool:
        """Whether a source may have so many more."""
        return self._quota.fits_source(source, items)

    @contextmanager
    def opened(self, source: str, give_way: Callable[[], None]) -> Iterator[DecodedBody]:
        """A body of a source, which counts until the block ends. `give_way` is called when it has to end at once."""
        holding = self._quota.open(source, give_way)
        try:
            yield DecodedBody(self, holding)
        finally:
            holding.close()
            self.given_back.send()
