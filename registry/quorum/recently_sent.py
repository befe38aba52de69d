"""What was sent to which peer lately, so that nothing is offered to it again and again."""

from __future__ import annotations

from typing import Final

import trio
from cachetools import TTLCache

from registry.protocol.messages import Item

REMEMBERED: Final = 65_536
REMEMBERED_FOR: Final = 6 * 3600.0  # seconds; then a peer may have room again


class RecentlySent:
    """Pairs of a peer and an update, each remembered for a time."""

    def __init__(self) -> None:
        self._pairs: TTLCache[tuple[str, bytes], None] = TTLCache(REMEMBERED, REMEMBERED_FOR, timer=trio.current_time)

    def remember(self, peer_id: str, item: Item) -> None:
        """`item` needn't be offered to the peer again."""
        self._pairs[peer_id, item.digest()] = None

    def knows(self, peer_id: str, item: Item) -> bool:
        """Whether `item` was remembered for the peer, and lately."""
        return (peer_id, item.digest()) in self._pairs
