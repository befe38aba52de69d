"""Read repair: replicas that a read found behind get what it found, once per replica and update."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import structlog

from registry.model.delta import Orders, delta
from registry.model.merge import ResourceState
from registry.model.values import Slot
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import Item
from registry.quorum.doubts import Doubts
from registry.quorum.recently_sent import RecentlySent
from registry.quorum.send_queue import SendQueue

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReadRepair:
    """Hands what is missing to the send queue; nobody waits for it."""

    def __init__(self, send_queue: SendQueue, doubts: Doubts) -> None:
        """`doubts` is told what replicas took, and what they lack all the same."""
        self._send_queue = send_queue
        self._doubts = doubts
        self._recently_sent = RecentlySent()
        self.repaired = 0
        """Updates that replicas have taken."""

    def after_read(
        self,
        found: ResourceState,
        known: Mapping[str, ResourceState],
        caught_up: Collection[str],
        asked_at: float,
        withheld: Collection[Slot] = (),
    ) -> None:
        """Sends replicas what they lack: `found` is what a read merged, `known` what each that answered had of it.

        `caught_up`: those whose answers counted. `asked_at`: when the read began, by Trio's clock. `withheld`: slots
        whose records the policy of the key withholds.
        """
        for peer_id, theirs in known.items():
            if theirs is found:
                continue
            missing = [Item(*write) for write in delta(found, Orders.of(theirs), withheld)]
            if peer_id in caught_up:
                self._doubts.note_lacked(peer_id, missing, asked_at)
            items = [item for item in missing if not self._recently_sent.knows(peer_id, item)]
            for item in items:
                self._recently_sent.remember(peer_id, item)
                self._send_queue.put(peer_id, item, partial(self._note, item), urgent=False)
            if items:
                _log.debug("repairing a replica", peer_id=peer_id, items=len(items))

    def _note(self, item: Item, peer_id: str, error: ErrorInfo | None) -> None:
        if error:
            _log.debug("a repair was refused", peer_id=peer_id, error=error.text)
        else:
            self.repaired += 1
            self._doubts.note_stored(peer_id, item)
