"""Remembers for a while which peers said what isn't so: they are asked and written to last.

Rules:
1. A peer that answered with something that isn't signed as it should be *invented* it.
2. A peer that said it had something on disk, and later answers without it, *lacked* it. By its own word alone: what
   others show and it doesn't have proves nothing, since whoever signs something may keep it from everybody else.
3. Such a peer is doubted for `DOUBTED_FOR` seconds. An honest one, whose disk was lost or had to make room, loses
   nothing but its turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio
from cachetools import TTLCache

from registry.protocol.messages import Item

DOUBTED_FOR: Final = 600.0  # seconds
MAX_DOUBTED: Final = 1024  # peers
MAX_STORED: Final = 16_384  # words of peers that they have something


class Doubts:
    """Which of the other replicas one node doubts."""

    def __init__(self) -> None:
        self._doubted: TTLCache[str, None] = TTLCache(MAX_DOUBTED, DOUBTED_FOR, timer=trio.current_time)
        self._stored: TTLCache[tuple[str, bytes], float] = TTLCache(MAX_STORED, DOUBTED_FOR, timer=trio.current_time)

    def note_stored(self, peer_id: str, item: Item) -> None:
        """A peer says that it has `item` on disk."""
        self._stored[peer_id, item.digest()] = trio.current_time()

    def note_lacked(self, peer_id: str, items: Iterable[Item], asked_at: float) -> None:
        """A peer that was asked from then on (seconds of Trio's clock) answered without these."""
        if any(self._stored.get((peer_id, item.digest()), asked_at) < asked_at for item in items):
            self._doubted[peer_id] = None

    def note_invented(self, peer_id: str) -> None:
        """A peer answered with what nobody signed."""
        self._doubted[peer_id] = None

    def is_doubted(self, peer_id: str) -> bool:
        """Whether a peer is to be the last to be chosen."""
        return peer_id in self._doubted
