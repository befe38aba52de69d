"""The hash tree over what this node knows in some ranges, as it is compared with one other replica.

Beside resources there are entries of the indexes of owners that are in these ranges. Those of one index are at one
position, and would make one leaf; so in the tree an entry is where its resource is, which all replicas see alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import trio
from cachetools import TTLCache

from overlay.limits.time_slices import turn
from registry.model.expiry_horizon import ExpiryHorizon
from registry.replication.hash_tree import FAN_OUT, POSITION_PREFIX, HashTree, Prefix, entry_of
from registry.replication.kept_entries import PER_ROW, Collected, KeptEntries, Part, Row, Times, around
from registry.replication.ranges import Ranges, intersection
from registry.replication.refusals import Refusals, RefusedEntries, without
from registry.replication.stored_places import PAGE, Span, next_index_places, next_places, spans_of
from registry.storage import NOTHING, Place, Store
from registry.storage.checked_rows import is_text
from registry.storage.digests import position_bytes
from registry.storage.in_turns import digest_in_turns
from registry.storage.index_table import IndexPlace, index_position

MAX_TREES: Final = 4  # remembered while callers ask about them; one of 20,000 resources takes 2 MB
REMEMBERED_FOR: Final = 30.0  # seconds
BUILT_AT_ONCE: Final = 2  # for others
_PER_HASHED: Final = 2e-6  # seconds for an entry
_PARTS_AT_ONCE: Final = 32  # that are put together before other tasks get their turn
_PER_PART: Final = 1e-4  # seconds


class Tree(NamedTuple):
    """A hash tree over so many resources, and over entries of indexes, in some ranges, for comparing with a peer."""

    hashes: HashTree
    resources: int
    peer_id: str
    ranges: Ranges
    horizon: ExpiryHorizon


class Named(NamedTuple):
    """What entries of a tree are of: resources, by id, and entries of indexes, by owner and label."""

    key_ids: list[str]
    listed: list[tuple[str, str]]


class Trees:
    """Builds trees out of the storage's digests; those that a caller asks about are remembered for a moment."""

    def __init__(self, store: Store, refusals: Refusals, refused_entries: RefusedEntries) -> None:
        self._store = store
        self._refusals = refusals
        self._refused_entries = refused_entries
        self._resources = KeptEntries(self._next_resources)
        self._index = KeptEntries(self._next_listed)
        store.on_commit(lambda changes: self._resources.note_changed(map(position_bytes, changes)))
        store.on_listed(self._note_listed)
        self._asked: TTLCache[str, Tree] = TTLCache(
            MAX_TREES, REMEMBERED_FOR, timer=trio.current_time
        )  # by caller, who compares one after the other
        self._building = trio.Semaphore(BUILT_AT_ONCE)

    def _note_listed(self, owners: Collection[str]) -> None:
        if all(map(is_text, owners)):
            self._index.note_changed(map(index_position, owners))
        else:  # a disk spoilt the name of one
            self._index.forget()

    async def build(
        self,
        peer_id: str,
        ranges: Ranges,
        horizon: ExpiryHorizon,
        *,
        is_asked: bool = False,
        by_own_rules: bool = True,
    ) -> Tree:
        """The tree of what lives in these ranges, without what the peer refused. Raises StorageError.

        `is_asked`: the ranges are the peer's, and nothing that is remembered is arranged for them. `by_own_rules`:
        whether the horizon is this node's own; nothing that is read by another's is remembered.
        """
        refused = self._refusals.of(peer_id)
        apart = {position_bytes(key_id)[:POSITION_PREFIX] for key_id in refused}
        found = await self._resources.collect(
            ranges, msgspec.structs.astuple(horizon), apart, fits=not is_asked, by_own_rules=by_own_rules
        )
        others: list[bytes] = []
        for number, row in enumerate(found.rest):
            if number % PAGE == 0:
                await turn(PAGE * PER_ROW)
            others += await self._entry_for(row.name, refused, horizon)
        resources = sum(len(part.entries) for part in found.parts) + len(others)
        listed = await self._index.collect(
            ranges, (horizon.owned, horizon.removed), fits=not is_asked, by_own_rules=by_own_rules
        )
        others += await self._entries_of(listed, peer_id, horizon)
        return Tree(await _hashed(found.parts, others), resources, peer_id, ranges, horizon)

    async def _entry_for(
        self, place: Place, refused: Mapping[str, Mapping[bytes, bytes]], horizon: ExpiryHorizon
    ) -> list[bytes]:
        """The entry of a resource, without what was refused of it; none if nothing is left."""
        digest = await self._store.digest_at(place, horizon)
        if place.key_id in refused:
            alive = horizon.alive(await self._store.resource(place.key_id))
            digest = await digest_in_turns(without(alive, refused[place.key_id]))
        return [] if digest == NOTHING else [entry_of(place.position, digest)]

    async def _entries_of(self, found: Collected[IndexPlace], peer_id: str, horizon: ExpiryHorizon) -> list[bytes]:
        """The entries of what is listed, without what the peer refused."""
        entries = [entry for part in found.parts for entry in part.entries]
        for number, row in enumerate(found.rest):
            if number % PAGE == 0:
                await turn(PAGE * PER_ROW)
            digest = await self._digest_of_rest(row.name, horizon)
            entries += [entry_of(position_bytes(row.name.key_id), digest)] if digest else []
        if not self._refused_entries.has_any(peer_id):
            return entries
        left: list[bytes] = []
        for start in range(0, len(entries), PAGE):
            await turn(PAGE * PER_ROW)
            page = entries[start : start + PAGE]
            left += [each for each in page if not self._refused_entries.knows(peer_id, each[POSITION_PREFIX:])]
        return left

    async def _digest_of_rest(self, place: IndexPlace, horizon: ExpiryHorizon) -> bytes:
        """The digest of what of an entry isn't too old; empty when nothing is left."""
        entry = await self._store.read(lambda transaction: transaction.index.entry(place.owner_peer_id, place.label))
        left = entry.fresh(horizon.owned, horizon.removed) if entry is not None else None
        return left.digest() if left is not None else b""

    async def _next_resources(self, left: list[Span], horizon: Times) -> list[Row[Place]]:
        places = await next_places(self._store, left, ExpiryHorizon(*horizon))
        return [Row(place.position, entry_of(place.position, place.digest), place.oldest, place) for place in places]

    async def _next_listed(self, left: list[Span], horizon: Times) -> list[Row[IndexPlace]]:
        owned, removed = horizon
        places = await next_index_places(self._store, left, ExpiryHorizon(-1, -1, -1, owned, removed))
        return [
            Row(place.position, entry_of(position_bytes(place.key_id), place.digest), place.oldest, place)
            for place in places
        ]

    async def named(self, tree: Tree, entries: Collection[bytes]) -> Named:
        """What these entries of a tree are of. What changed since the tree was built, or is there in part only, is told
        by the position alone. Raises StorageError."""
        unknown = set(entries)
        at: dict[bytes, list[str]] = {}
        named = Named([], [])
        positions = sorted({entry[:POSITION_PREFIX] for entry in entries})
        for start in range(0, len(positions), PAGE):
            left = spans_of(intersection(tree.ranges, around(positions[start : start + PAGE])))
            while left:
                await turn(PAGE * PER_ROW)
                for place in await next_places(self._store, left, tree.horizon):
                    entry = entry_of(place.position, place.digest)
                    if entry in unknown:
                        unknown.remove(entry)
                        named.key_ids.append(place.key_id)
                    else:
                        at.setdefault(entry[:POSITION_PREFIX], []).append(place.key_id)
        left = spans_of(tree.ranges) if unknown else []
        while left:
            await turn(PAGE * PER_ROW)
            for listed in await next_index_places(self._store, left, tree.horizon):
                digest = listed.digest if listed.is_alive else await self._digest_of_rest(listed, tree.horizon)
                entry = entry_of(position_bytes(listed.key_id), digest)
                if entry in unknown:
                    unknown.remove(entry)
                    named.listed.append((listed.owner_peer_id, listed.label))
        prefixes = {entry[:POSITION_PREFIX] for entry in unknown}
        named.key_ids.extend(key_id for prefix in sorted(prefixes) for key_id in at.get(prefix, ()))
        return named

    async def for_caller(
        self, caller: str, ranges: Ranges, horizon: ExpiryHorizon, *, anew: bool, by_own_rules: bool = True
    ) -> HashTree:
        """The tree that a caller asks about; the one that it asked about last, unless it begins `anew`. A small one is
        built again, so that nobody has large ones forgotten by asking about many of those. `by_own_rules`: see
        `build`."""
        known = None if anew else self._asked.get(caller)
        if known is not None and (known.ranges, known.horizon) == (ranges, horizon):
            return known.hashes
        async with self._building:
            tree = await self.build(caller, ranges, horizon, is_asked=True, by_own_rules=by_own_rules)
        if len(tree.hashes) > PAGE:
            self._asked[caller] = tree
        return tree.hashes


async def _hashed(parts: Iterable[Part], others: Iterable[bytes]) -> HashTree:
    """The tree over the entries of these parts and others; what was hashed of blocks before isn't hashed again."""
    apart = HashTree(others)
    known: dict[Prefix, bytes] = {}
    entries: list[bytes] = []
    unknown: list[tuple[Part, tuple[bytes, ...]]] = []
    for number, part in enumerate(parts):
        if number % _PARTS_AT_ONCE == 0:
            await turn(_PARTS_AT_ONCE * _PER_PART)
        entries += part.entries
        if part.digests is not None:
            beside = tuple(apart.entries(part.prefix)) if len(apart) else ()
            digest = part.digests.get(beside)
            if digest is None:
                unknown.append((part, beside))
            else:
                known[part.prefix] = digest
    entries += apart.entries()
    hashes = HashTree(entries, known)
    for part, beside in unknown:
        await turn((len(part.entries) + len(beside)) * _PER_HASHED)
        part.remember(beside, hashes.digest(part.prefix))
    for step in range(FAN_OUT if len(hashes) > PAGE else 0):  # all together take some 30 ms of 20,000 resources
        hashes.digest(bytes([step]))
        await trio.lowlevel.checkpoint()
    return hashes
