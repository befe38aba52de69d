"""The hash tree over what this node knows in some ranges, as it is compared with one other replica."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NamedTuple

import trio
from cachetools import TTLCache

from overlay.limits.time_slices import turn
from registry.model.expiry_horizon import ExpiryHorizon
from registry.replication.hash_tree import FAN_OUT, HashTree, entry_of
from registry.replication.ranges import Ranges
from registry.replication.refusals import Refusals, without
from registry.storage import NOTHING, Place, Store, Transaction
from registry.storage.in_turns import digest_in_turns

PAGE: Final = 512  # resources read at once, while writes wait
MAX_TREES: Final = 4  # remembered while callers ask about them; one of 20,000 resources takes 2 MB
REMEMBERED_FOR: Final = 30.0  # seconds
BUILT_AT_ONCE: Final = 2  # for others
_PER_PLACE: Final = 1e-5  # seconds


class Tree(NamedTuple):
    """A hash tree, and of which resource each of its entries is."""

    hashes: HashTree
    key_ids: dict[bytes, str]


class Trees:
    """Builds trees out of the storage's digests; those that a caller asks about are remembered for a moment."""

    def __init__(self, store: Store, refusals: Refusals) -> None:
        self._store = store
        self._refusals = refusals
        self._asked: TTLCache[tuple[str, Ranges, ExpiryHorizon], HashTree] = TTLCache(
            MAX_TREES, REMEMBERED_FOR, timer=trio.current_time
        )
        self._building = trio.Semaphore(BUILT_AT_ONCE)

    async def build(self, peer_id: str, ranges: Ranges, horizon: ExpiryHorizon) -> Tree:
        """The tree of what lives in these ranges, without what the peer refused. Raises StorageError."""
        refused = self._refusals.of(peer_id)
        key_ids: dict[bytes, str] = {}
        async with aclosing(pages(self._store, ranges, horizon)) as found:
            async for page in found:
                await turn(PAGE * _PER_PLACE)
                for place in page:
                    digest = await self._store.digest_at(place, horizon)
                    if place.key_id in refused:
                        alive = horizon.alive(await self._store.resource(place.key_id))
                        digest = await digest_in_turns(without(alive, refused[place.key_id]))
                    if digest != NOTHING:
                        key_ids[entry_of(place.position, digest)] = place.key_id
        hashes = HashTree(key_ids)
        for step in range(FAN_OUT if len(hashes) > PAGE else 0):  # all together take some 30 ms of 20,000 resources
            hashes.digest(bytes([step]))
            await trio.lowlevel.checkpoint()
        return Tree(hashes, key_ids)

    async def for_caller(self, caller: str, ranges: Ranges, horizon: ExpiryHorizon, *, anew: bool) -> HashTree:
        """The tree that a caller asks about; the one that it asked about last, unless it begins `anew`."""
        asked = (caller, ranges, horizon)
        known = None if anew else self._asked.get(asked)
        if known is None:
            async with self._building:
                known = (await self.build(caller, ranges, horizon)).hashes
            self._asked[asked] = known
        return known


async def pages(store: Store, ranges: Ranges, horizon: ExpiryHorizon) -> AsyncGenerator[list[Place], None]:
    """What is stored in these ranges, in order of position, a page at a time; to be closed. Raises StorageError."""
    left = [(part.first_bytes, "", part.last_bytes) for part in reversed(ranges)]

    def read(transaction: Transaction) -> list[Place]:
        found: list[Place] = []
        while left and len(found) < PAGE:
            first, after, last = left.pop()
            found += transaction.places_in(first, last, horizon, PAGE - len(found), after=after)
            if len(found) == PAGE:
                left.append((found[-1].position, found[-1].key_id, last))
        return found

    while left:
        yield await store.read(read)
