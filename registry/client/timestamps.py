"""An issuer never gives two states of one slot the same second (docs/design.md, State and merging)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from registry.model.values import Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.replica.ingest import Ingest
from registry.storage import Store, Transaction


class TimestampLog:
    """The last timestamp_issued per slot of this process's identities, in its data folder.

    A slot's next timestamp is max(now, last + 1), where last is the greatest of what was given before and of what was
    seen in the network. It is on disk before anything that it signs leaves this process.
    """

    def __init__(self, store: Store, ingest: Ingest, here: str) -> None:
        """`here`: the process's own peer id."""
        self._store = store
        self._ingest = ingest
        self._here = here

    def is_kept(self, slot: Slot) -> bool:
        """Whether this process keeps a slot's states: of what it hosts, and of resources that it is near to."""
        return slot.peer_id == self._here or self._ingest.is_among_nearest(slot.key_id)

    async def reserve(self, slot: Slot, last_seen: int, now: int) -> int:
        """The timestamp for a state that somebody else has to sign too. Times in seconds. Raises StorageError."""
        return await self._store.write(lambda transaction: self._next(transaction, slot, last_seen, now))

    async def issue(
        self,
        slot: Slot,
        last_seen: int,
        now: int,
        make: Callable[[int], Item],
        *,
        latest: int,
        wait: Callable[[int], Awaitable[None]],
    ) -> tuple[Item, ErrorInfo | None]:
        """What `make(timestamp)` signed, and why this process's storage refused that, or None when it is on disk.

        Timestamp, signature and storing are one transaction, on its thread. A timestamp after `latest` is reserved, and
        used after `wait(timestamp)`. Raises RegistryError for what doesn't verify, and what `make` raised.
        """
        await self._store.resource(slot.key_id)  # into memory, so that the write that follows finds it there
        timestamp = now

        def decide(transaction: Transaction) -> Item | None:
            nonlocal timestamp
            timestamp = self._next(transaction, slot, last_seen, now)
            return make(timestamp) if timestamp <= latest else None

        item, error = await self._ingest.store_made(decide)
        if item is None:
            await wait(timestamp)
            item = make(timestamp)
            error = await self._ingest.keep(item)
        return item, error

    def _next(self, transaction: Transaction, slot: Slot, last_seen: int, now: int) -> int:
        issued = transaction.issued.of(slot.issued_by, self._here)
        last = max(issued.last(slot.key_id, slot.peer_id), last_seen)
        timestamp = max(now, last + 1)
        if timestamp == issued.forsaken(slot.key_id, slot.peer_id):
            timestamp += 1
        issued.record(slot.key_id, slot.peer_id, timestamp)
        return timestamp
