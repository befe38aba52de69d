"""The hash tree over what this node knows in some ranges, as it is compared with one other replica.

Beside resources there are entries of the indexes of owners that are in these ranges. Those of one index are at one
position, and would make one leaf; so in the tree an entry is where its resource is, which all replicas see alike.
"""

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
from registry.replication.refusals import Refusals, RefusedEntries, without
from registry.storage import NOTHING, Place, Store, Transaction
from registry.storage.digests import position_bytes
from registry.storage.in_turns import digest_in_turns
from registry.storage.index_table import IndexPlace

PAGE: Final = 512  # resources read at once, while writes wait
MAX_TREES: Final = 4  # remembered while callers ask about them; one of 20,000 resources takes 2 MB
REMEMBERED_FOR: Final = 30.0  # seconds
BUILT_AT_ONCE: Final = 2  # for others
_PER_PLACE: Final = 1e-5  # seconds


class Tree(NamedTuple):
    """A hash tree, and of which resource, or which (owner, label) of an index, each of its entries is."""

    hashes: HashTree
    key_ids: dict[bytes, str]
    listed: dict[bytes, tuple[str, str]]


class Trees:
    """Builds trees out of the storage's digests; those that a caller asks about are remembered for a moment."""

    def __init__(self, store: Store, refusals: Refusals, refused_entries: RefusedEntries) -> None:
        self._store = store
        self._refusals = refusals
        self._refused_entries = refused_entries
        self._asked: TTLCache[str, tuple[Ranges, ExpiryHorizon, HashTree]] = TTLCache(
            MAX_TREES, REMEMBERED_FOR, timer=trio.current_time
        )  # by caller, who compares one after the other
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
        listed = await self._listed(peer_id, ranges, horizon)
        hashes = HashTree((*key_ids, *listed))
        for step in range(FAN_OUT if len(hashes) > PAGE else 0):  # all together take some 30 ms of 20,000 resources
            hashes.digest(bytes([step]))
            await trio.lowlevel.checkpoint()
        return Tree(hashes, key_ids, listed)

    async def _listed(self, peer_id: str, ranges: Ranges, horizon: ExpiryHorizon) -> dict[bytes, tuple[str, str]]:
        found: dict[bytes, tuple[str, str]] = {}
        async with aclosing(index_pages(self._store, ranges, horizon)) as listing:
            async for page in listing:
                await turn(PAGE * _PER_PLACE)
                for place in page:
                    digest = place.digest if place.is_alive else await self._digest_of_rest(place, horizon)
                    if digest and not self._refused_entries.knows(peer_id, digest):
                        at = entry_of(position_bytes(place.key_id), digest)
                        found[at] = place.owner_peer_id, place.label
        return found

    async def _digest_of_rest(self, place: IndexPlace, horizon: ExpiryHorizon) -> bytes:
        """The digest of what of an entry isn't too old; empty when nothing is left."""
        entry = await self._store.read(lambda transaction: transaction.index.entry(place.owner_peer_id, place.label))
        left = entry.fresh(horizon.owned, horizon.removed) if entry is not None else None
        return left.digest() if left is not None else b""

    async def for_caller(self, caller: str, ranges: Ranges, horizon: ExpiryHorizon, *, anew: bool) -> HashTree:
        """The tree that a caller asks about; the one that it asked about last, unless it begins `anew`. A small one is
        built again, so that nobody has large ones forgotten by asking about many of those."""
        known = None if anew else self._asked.get(caller)
        if known is not None and known[:2] == (ranges, horizon):
            return known[2]
        async with self._building:
            hashes = (await self.build(caller, ranges, horizon)).hashes
        if len(hashes) > PAGE:
            self._asked[caller] = ranges, horizon, hashes
        return hashes


async def pages(store: Store, ranges: Ranges, horizon: ExpiryHorizon) -> AsyncGenerator[list[Place], None]:
    """What is stored in these ranges, in order of position, a page at a time; to be closed. Raises StorageError."""
    left = [(part.first_bytes, "", part.last_bytes) for part in reversed(ranges)]

    def read(transaction: Transaction) -> list[Place]:
        found: list[Place] = []
        while left and len(found) < PAGE:
            first, after, last = left.pop()
            found += transaction.positions.places_in(first, last, horizon, PAGE - len(found), after=after)
            if len(found) == PAGE:
                left.append((found[-1].position, found[-1].key_id, last))
        return found

    while left:
        yield await store.read(read)


async def index_pages(store: Store, ranges: Ranges, horizon: ExpiryHorizon) -> AsyncGenerator[list[IndexPlace], None]:
    """`pages`, of the entries of owners' indexes."""
    left = [(part.first_bytes, "", part.last_bytes) for part in reversed(ranges)]

    def read(transaction: Transaction) -> list[IndexPlace]:
        found: list[IndexPlace] = []
        while left and len(found) < PAGE:
            first, after, last = left.pop()
            found += transaction.index.places_in(
                first, last, horizon.owned, horizon.removed, PAGE - len(found), after=after
            )
            if len(found) == PAGE:
                left.append((found[-1].position, found[-1].key_id, last))
        return found

    while left:
        yield await store.read(read)
