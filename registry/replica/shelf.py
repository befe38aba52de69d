"""The shelf of a hosting peer: what it vouched for lies in its own storage."""

from __future__ import annotations

from registry.model.values import Key, Slot, State
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.replica.replica import Replica
from registry.storage import Store


class StoreShelf:
    """A `hosting.Shelf` over the peer's storage."""

    def __init__(self, store: Store, replica: Replica, peer_id: str) -> None:
        self._store = store
        self._replica = replica
        self._peer_id = peer_id

    async def state(self, slot: Slot) -> State | None:
        return (await self._store.resource(slot.key_id)).slots.get(slot)

    async def key(self, key_id: str) -> Key | None:
        return (await self._store.resource(key_id)).key

    async def occupancy(self, issuer: str) -> tuple[int, int, int]:
        return await self._store.read(lambda transaction: transaction.hosting(self._peer_id, issuer))

    async def keep(self, item: Item) -> ErrorInfo | None:
        [error] = await self._replica.ingest.store([item], self._peer_id)
        return error
