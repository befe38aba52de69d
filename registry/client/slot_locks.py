"""Locks by slot, so that one identity issues one state of a slot at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from registry.model.values import Slot


class SlotLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[Slot, trio.Lock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def locked(self, slot: Slot) -> AsyncIterator[None]:
        """Hold the lock of a slot within the block."""
        lock = self._locks.setdefault(slot, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(slot) is lock:
                del self._locks[slot]
