"""Reads what is stored in some ranges of the keyspace, in order of position, a page at a time."""

from __future__ import annotations

from typing import Final

from registry.model.expiry_horizon import ExpiryHorizon
from registry.replication.ranges import Ranges
from registry.storage import Place, Store, Transaction
from registry.storage.index_table import IndexPlace

PAGE: Final = 512  # rows and spans that are read at once, while writes wait

Span = tuple[bytes, str, bytes]
"""(position, id, position): what is from the first one on to the last one (32 bytes); of the first, what follows the id
of a resource."""


def spans_of(ranges: Ranges) -> list[Span]:
    """What is to be read of these ranges; the last one is next."""
    return [(part.first_bytes, "", part.last_bytes) for part in reversed(ranges)]


async def next_places(store: Store, left: list[Span], horizon: ExpiryHorizon) -> list[Place]:
    """The next resources; takes from `left` what it read. Raises StorageError."""

    def read(transaction: Transaction) -> list[Place]:
        found: list[Place] = []
        for _ in range(PAGE):
            if not left or len(found) == PAGE:
                break
            first, after, last = left.pop()
            found += transaction.positions.places_in(first, last, horizon, PAGE - len(found), after=after)
            if len(found) == PAGE:
                left.append((found[-1].position, found[-1].key_id, last))
        return found

    return await store.read(read)


async def next_index_places(store: Store, left: list[Span], horizon: ExpiryHorizon) -> list[IndexPlace]:
    """`next_places`, of the entries of owners' indexes."""

    def read(transaction: Transaction) -> list[IndexPlace]:
        found: list[IndexPlace] = []
        for _ in range(PAGE):
            if not left or len(found) == PAGE:
                break
            first, after, last = left.pop()
            found += transaction.index.places_in(
                first, last, horizon.owned, horizon.removed, PAGE - len(found), after=after
            )
            if len(found) == PAGE:
                left.append((found[-1].position, found[-1].key_id, last))
        return found

    return await store.read(read)
