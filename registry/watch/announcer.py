"""Announces what changed to those who watch: on the topic of the resource, and by calls where no topic is shared."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

import structlog
import trio

from overlay.tasks import Wakeup
from registry.errors import StorageError
from registry.model.merge import ResourceState, merged
from registry.model.policy_withholding import why_withheld
from registry.model.values import Key, KeyTombstone, Record, Slot
from registry.protocol.messages import Item
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.storage import Store
from registry.watch.announcement import announcement_of
from registry.watch.direct_announcements import DirectAnnouncements
from registry.watch.follower import Served
from registry.watch.subscription_table import SubscriptionTable

MAX_UNTOLD: Final = 16_384  # slots that changed and weren't announced yet
PUSHED: Final = 8  # peers in a topic to whom gossip surely pushes at once; those in its mesh

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


Subject = Slot | type[Key] | type[KeyTombstone] | None
"""What is announced of a resource: a slot's state, its tombstone (None), the other one of its tombstones, if there are
two (`KeyTombstone`), or its key alone, for its policy."""


class WatchesServed(Protocol):
    """What this node watches itself: satisfied by `registry.watch.watches.Watches`."""

    def served(self, key_id: str) -> Served | None:
        """What is known of a resource that is watched here; None of any other."""
        ...


class Announcer:
    """Announces one change after the other, each slot in its newest state: nobody misses those in between."""

    def __init__(
        self,
        network: Network,
        store: Store,
        replica: Replica,
        watches: WatchesServed,
        table: SubscriptionTable,
        *,
        topics: Collection[str],
        relayed: Collection[str],
        direct: DirectAnnouncements,
    ) -> None:
        """`topics`: those joined, by resource; `relayed`: resources that are followed for their watchers; `direct`:
        tells those whom a topic doesn't reach. All three are somebody else's, and change."""
        self._network = network
        self._store = store
        self._replica = replica
        self._watches = watches
        self._table = table
        self._topics = topics
        self._relayed = relayed
        self._direct = direct
        self._untold: dict[tuple[str, Subject], None] = {}
        self._changed = Wakeup()

    def note(self, key_id: str, slot: Subject) -> None:
        """Has a slot announced that changed, or one of the tombstones of the resource, or its key."""
        if not isinstance(slot, Slot) or len(self._untold) < MAX_UNTOLD:
            self._untold[key_id, slot] = None
            self._changed.set()

    async def run(self) -> None:
        """Announces until cancelled."""
        while True:
            await self._changed.wait()
            while self._untold:
                key_id, slot = next(iter(self._untold))
                del self._untold[key_id, slot]
                item = await self._item(key_id, slot)
                if item is not None:
                    await self._announce_one(item, slot)

    async def known(self, key_id: str) -> ResourceState:
        """All that this node knows of a resource, stored or watched. Raises StorageError."""
        served = self._watches.served(key_id) if key_id in self._relayed else None
        known = served.state if served is not None else None
        if self._replica.is_among_nearest(key_id) or known is None:
            stored = await self._store.resource(key_id)
            return stored if known is None else merged(stored, known)
        await trio.lowlevel.checkpoint()
        return known

    async def _item(self, key_id: str, slot: Subject) -> Item | None:
        try:
            resource = await self.known(key_id)
        except StorageError as error:
            _log.error("a change can't be announced", key_id=key_id, error=str(error))
            return None
        if slot is None or slot is KeyTombstone:
            ended = resource.key_tombstones[0 if slot is None else 1 :]
            return Item(ended[0]) if ended else None
        if not isinstance(slot, Slot):
            return Item(resource.key) if resource.key is not None else None
        state = resource.slots.get(slot)
        if state is None or resource.key is None:
            return None
        if isinstance(state, Record) and why_withheld(resource.key, state, self._replica.now()) is not None:
            return None
        return Item(resource.key, state)

    async def _announce_one(self, item: Item, slot: Subject) -> None:
        key_id, payload = item.key_id, announcement_of(item)
        watchers = self._table.watchers(key_id)
        on_topic = sum(subscription.on_topic for subscription in watchers.values()) if key_id in self._topics else 0
        for watcher, subscription in watchers.items():
            # Gossip pushes to some only, and names what it has to the others when it comes to it. Nodes are in each
            # other's reach; clients are linked to their node alone.
            by_topic = on_topic and subscription.on_topic and (subscription.is_member or on_topic <= PUSHED)
            if not by_topic:
                self._direct.put(watcher, (key_id, slot), payload)
        if on_topic:
            await self._network.topics.announce(key_id, payload)
