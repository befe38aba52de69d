"""What this node has that it isn't a keeper of any more: a few resources at a time, in turn."""

from __future__ import annotations

from typing import Final

from registry.model.expiry_horizon import ExpiryHorizon
from registry.replication.ranges import EVERYWHERE, Range, difference, intersection
from registry.replication.stored_places import next_places, spans_of
from registry.replication.view import RangeView
from registry.storage import Store

SURPLUS_AT_ONCE: Final = 256  # resources an hour whose keepers are looked up
_ALWAYS: Final = ExpiryHorizon(-1, -1, -1, -1, -1, -1)


class Surplus:
    """Remembers how far it has come."""

    def __init__(self, store: Store, view: RangeView) -> None:
        self._store = store
        self._view = view
        self._after = 0  # position

    async def next_few(self) -> list[str]:
        """The next ones in order of position; after the last one it begins again. Raises StorageError."""
        elsewhere = difference(EVERYWHERE, await self._view.kept())
        ahead = intersection(elsewhere, (Range(self._after, EVERYWHERE[0].end),))
        key_ids: list[str] = []
        self._after = 0
        left = spans_of(ahead)
        while left:
            for place in await next_places(self._store, left, _ALWAYS):
                key_ids.append(place.key_id)
                if len(key_ids) == SURPLUS_AT_ONCE:
                    self._after = int.from_bytes(place.position, "big") + 1
                    return key_ids
        return key_ids
