"""One at a time per slot, for as many slots as are in use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from registry.model.values import Slot


class SlotLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[Slot, trio.Lock] = {}

    @asynccontextmanager
    async def locked(self, slot: Slot) -> AsyncIterator[None]:
        """Within, nobody else is in it for this slot."""
        lock = self._locks.setdefault(slot, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(slot) is lock:
                del self._locks[slot]
