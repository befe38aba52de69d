"""An issuer never gives two states of one slot the same second (docs/design.md, State and merging)."""

from __future__ import annotations

from registry.model.values import Slot
from registry.storage import Store, Transaction


class TimestampLog:
    """The last timestamp_issued per slot of this process's identity, in its data folder."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def reserve(self, slot: Slot, last_seen: int, now: int) -> int:
        """The timestamp (seconds) for the slot's next state: max(now, last + 1), where last is the greatest of what
        was reserved before and what was seen in the network. It is on disk before it is used."""

        def decide(transaction: Transaction) -> int:
            last = max(transaction.last_issued(slot.key_id, slot.peer_id), last_seen)
            timestamp = max(now, last + 1)
            transaction.record_issued(slot.key_id, slot.peer_id, timestamp)
            return timestamp

        return await self._store.write(decide)
