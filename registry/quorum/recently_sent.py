"""What was offered to which peer lately, so that nothing is offered again and again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from registry.model.values import digest_of
from registry.protocol.messages import Item

REMEMBERED: Final = 65_536
REMEMBERED_FOR: Final = 6 * 3600.0  # seconds; then a peer may have room again


class RecentlySent:
    """Pairs of a peer and an update, each remembered for a time."""

    def __init__(self) -> None:
        self._recently_sent: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def remember(self, peer_id: str, item: Item) -> None:
        """`item` needn't be offered to the peer again."""
        offer = (peer_id, _update(item))
        self._recently_sent[offer] = trio.current_time() + REMEMBERED_FOR
        self._recently_sent.move_to_end(offer)
        if len(self._recently_sent) > REMEMBERED:
            self._recently_sent.popitem(last=False)

    def knows(self, peer_id: str, item: Item) -> bool:
        """Whether `item` was remembered for the peer, and lately."""
        return self._recently_sent.get((peer_id, _update(item)), 0.0) > trio.current_time()


def _update(item: Item) -> bytes:
    return digest_of(item.key_or_tombstone if item.state is None else item.state)
