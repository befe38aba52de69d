"""Compares resources with one peer and sends it what it lacks; `registry.replication.comparison_server` answers.

Whole ranges of positions are compared by hash trees (`over_ranges`), which tell the resources that differ; those are
compared by the orders of their states (`with_peer`), and what the other lacks is sent. What it has and we lack it finds
the same way. Entries of owners' indexes that differ are small, and sent at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog
import trio
from cachetools import LRUCache

from overlay.errors import NoSuchMethod
from registry.codes import Code
from registry.errors import InvalidValue
from registry.model.delta import delta
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.model.owner_index import IndexEntry
from registry.model.values import Slot, digest_of
from registry.protocol.index_messages import ENTER, EnterBody
from registry.protocol.messages import MAX_ITEMS, MAX_PAGE, Item, PutAnswer, PutBody, build, parse
from registry.protocol.network import Clock, Network
from registry.replica.replica import Replica
from registry.replication.comparison_server import ComparisonServer
from registry.replication.epoch import epoch_of
from registry.replication.hash_tree import Descent, TreeNode
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    MAX_ENTRIES,
    MAX_NODES,
    MAX_RANGES,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    Summary,
    packed,
    size_of,
    unpacked,
)
from registry.replication.ranges import Ranges, difference, intersection, union
from registry.replication.refusals import NO_KEY, Refusals, RefusedEntries
from registry.replication.trees import Tree, Trees
from registry.replication.view import RangeView
from registry.storage import Store, Transaction
from registry.storage.in_turns import digest_in_turns, in_parts

CALL_TIMEOUT: Final = 10.0  # seconds for one body
MAX_CALLERS: Final = 256
_NODES_AT_ONCE: Final = 32  # of a tree, after which other tasks get their turn
TOLD_BY: Final = 3  # members nearest to a peer that tell it so when they have nothing to compare with it
MOST_MISSING: Final = 4 * 2**20  # bytes of what a peer lacks, after which no further resource is read before it is sent
TERMS: Final = 3  # times that a peer may say what else it compares by

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Compared(NamedTuple):
    """What came of comparing ranges: resources that a peer lacks or has otherwise, and where it takes nothing. Entries
    of indexes that it lacked it has got."""

    differing: list[str]
    unwanted: Ranges


class ComparisonCounters:
    """Counts what comparing has cost this node since its start."""

    __slots__ = ("bytes", "messages", "repaired", "resources")

    def __init__(self) -> None:
        self.resources = 0
        self.repaired = 0
        self.messages = 0
        self.bytes = 0


class AntiEntropy:
    """Compares with peers: `over_ranges` and `with_peer`. Has a `ComparisonServer` answer those that ask."""

    def __init__(self, network: Network, store: Store, replica: Replica, clock: Clock) -> None:
        self._network = network
        self._store = store
        self._replica = replica
        self._clock = clock
        self.refusals = Refusals()
        self._refused_entries = RefusedEntries()
        self.view = RangeView(network, lambda: replica.settings)
        self._trees = Trees(store, self.refusals, self._refused_entries)
        self._begun: LRUCache[str, None] = LRUCache(MAX_CALLERS)  # comparisons whose end the peer wasn't told of
        self.counters = ComparisonCounters()
        ComparisonServer(network, store, replica, clock, self.view, self._trees)

    async def over_ranges(self, peer_id: str, ranges: Ranges, *, last: bool) -> Compared:
        """Compares all that is in some ranges (`MAX_RANGES` at most) with what a peer has there. Of what differs it
        sends the entries of indexes, and no resource.

        With `last` this is all for now, unless something differs. Raises CallFailed, InvalidValue for a malformed
        answer, StorageError.
        """
        settings = self._replica.settings
        epoch = epoch_of(self._clock(), settings.clock_skew)
        horizon = own = ExpiryHorizon.at(epoch, settings)
        unwanted, told = Ranges(), None
        for _ in range(TERMS):
            tree = await self._trees.build(peer_id, ranges, horizon, by_own_rules=horizon == own)
            if not len(tree.hashes):
                if last:
                    await self._tell_end(peer_id)
                return Compared([], unwanted)
            body = RangesBody(epoch, told, packed(ranges), tree.hashes.digest(), (), last)
            answer = await self._ask_ranges(peer_id, body)
            if answer.horizon is None and answer.ranges is None:
                self.counters.resources += tree.resources
                differing = [] if answer.same else await self._differing(peer_id, body, tree, answer)
                if last and answer.same:
                    self._begun.pop(peer_id, None)
                elif last and not differing:
                    await self._tell_end(peer_id)
                return Compared(differing, unwanted)
            if answer.horizon is not None:
                told = horizon = horizon.stricter(answer.horizon)
            if answer.ranges is not None:
                taken = unpacked(answer.ranges)
                unwanted = union(unwanted, difference(ranges, taken))
                ranges = intersection(ranges, taken)[:MAX_RANGES]
        raise InvalidValue("a peer never says by what it compares ranges")

    async def _differing(self, peer_id: str, body: RangesBody, tree: Tree, answer: RangesAnswer) -> list[str]:
        """The resources that differ, when the roots do; entries of indexes that do are sent."""
        differing = await self._descend(peer_id, body, tree, answer)
        named = await self._trees.named(tree, differing)
        await self._send_listed(peer_id, named.listed)
        return named.key_ids

    async def _send_listed(self, peer_id: str, places: Sequence[tuple[str, str]]) -> None:
        """Sends a peer entries of indexes, by owner and label."""
        left = list(places)
        horizon = ExpiryHorizon.at(int(self._clock()), self._replica.settings)
        while left:
            batch, taken = await self._store.read(partial(_entries_at, left[:MAX_ITEMS], horizon))
            del left[:taken]
            if not batch:
                continue
            try:
                answer = await self._call(peer_id, ENTER, build(EnterBody.of(batch)))
            except NoSuchMethod:  # of a version before indexes
                return
            for entry, error in zip(batch, parse(answer, PutAnswer).errors, strict=False):
                if error and not (error.kind.is_temporary or error.code == Code.NOT_RESPONSIBLE):
                    self._refused_entries.remember(peer_id, entry.digest())

    async def _descend(self, peer_id: str, body: RangesBody, tree: Tree, answer: RangesAnswer) -> list[bytes]:
        """The entries of our tree that the peer hasn't, when the roots differ: `answer` has the peer's."""
        descent = Descent(tree.hashes)

        def take(prefix: bytes, node: tuple[bool, bytes]) -> None:
            descent.told(prefix, TreeNode(*node))

        asked, descent.ahead = descent.ahead, []
        while True:
            if len(answer.nodes) != len(asked):
                raise InvalidValue("a peer told of other nodes than it was asked for")
            try:
                async for _ in in_parts(map(take, asked, answer.nodes), _NODES_AT_ONCE):
                    pass
            except ValueError as error:
                raise InvalidValue(str(error)) from error
            if not descent.ahead:
                return descent.differing
            asked = descent.ahead[:MAX_NODES]
            del descent.ahead[:MAX_NODES]
            answer = await self._ask_ranges(peer_id, msgspec.structs.replace(body, root=b"", prefixes=tuple(asked)))

    async def _ask_ranges(self, peer_id: str, body: RangesBody) -> RangesAnswer:
        return parse(await self._call(peer_id, COMPARE_RANGES, build(body)), RangesAnswer)

    async def with_peer(self, peer_id: str, key_ids: Sequence[str], *, last: bool) -> list[str]:
        """Compares these resources with a peer's and sends what it lacks. `last` says that this is all for now.

        Returns those that the peer doesn't feel responsible for: its view of the network may be older than ours, or
        newer. Raises CallFailed, InvalidValue for a malformed answer, StorageError.
        """
        left = list(key_ids)
        unwanted: list[str] = []
        while left:
            batch = left[:MAX_ENTRIES]
            rulings: dict[str, bytes] = {}
            items, compared = await self._missing(peer_id, batch, unwanted, rulings)
            del left[:compared]
            await self._send(peer_id, items, rulings, last=last and not left)
        if last and not key_ids:
            await self._tell_end(peer_id)
        return unwanted

    async def _tell_end(self, peer_id: str) -> None:
        """Tells a peer that this is all, with nothing more to send. Where nothing was compared either, those nearest to
        the peer tell it: it only waits for two words to count as caught up."""
        if peer_id in self._begun or self.view.rank_near(peer_id) < TOLD_BY:
            await self._send(peer_id, [], {}, last=True)

    async def _missing(
        self, peer_id: str, key_ids: Sequence[str], unwanted: list[str], rulings: dict[str, bytes]
    ) -> tuple[list[Item], int]:
        """Asks a peer what it has of the first of these; returns what it lacks, and how many were compared.

        `unwanted` gets those that it isn't responsible for, `rulings` the digests of the keys by whose policies the
        peer takes what it lacks.
        """
        now = int(self._clock())
        horizon = ExpiryHorizon.at(now, self._replica.settings)
        digests = await self._store.digests(key_ids, horizon)
        body = CompareBody(now, horizon, tuple((key_id, digests[key_id]) for key_id in key_ids))
        answer = parse(await self._call(peer_id, COMPARE, build(body)), CompareAnswer)
        compared = min(answer.compared, len(key_ids))
        if compared < 1:
            raise InvalidValue("the answer to a comparison compares nothing")
        items: list[Item] = []
        size = 0
        of_each = {summary.number: summary for summary in answer.summaries if 0 <= summary.number < compared}
        for number, summary in sorted(of_each.items()):  # each once, whatever the peer says
            if size > MOST_MISSING:
                compared = number  # the rest is compared again, once this is sent
                break
            if not summary.wanted:
                unwanted.append(key_ids[number])
                continue
            at = horizon.stricter(answer.horizon)
            mine = at.fresh(await self._store.resource(key_ids[number]))
            rules_there = mine.key is not None and summary.key is not None and mine.key.order() < summary.key.order()
            # What an older key here withholds, the peer's own may permit.
            withheld = () if rules_there else mine.withheld(at.certified)
            if await digest_in_turns(mine.without(withheld)) != summary.digest:
                ruling = rulings[key_ids[number]] = _ruling(mine, summary)
                missing = self._acceptable(peer_id, mine, summary, withheld, ruling)
                async for part in in_parts(missing):
                    size += sum(item.size() for item in part)
                items += missing
            await trio.lowlevel.checkpoint()
        self.counters.resources += compared
        return items, compared

    def _acceptable(
        self, peer_id: str, mine: ResourceState, summary: Summary, withheld: Collection[Slot], ruling: bytes
    ) -> list[Item]:
        """What the peer lacks of a resource and didn't refuse lately, by the policy of the key that rules there."""
        missing = [Item(*write) for write in delta(mine, summary.orders(), withheld)]
        wanted = [
            item for item in missing if not self.refusals.knows(peer_id, item.state or item.key_or_tombstone, ruling)
        ]
        if mine.key is not None:
            if summary.key is not None:
                self.refusals.forget(peer_id, mine.key)
            elif missing and not wanted:  # what it refused, it refused with the key
                self.refusals.remember(peer_id, mine.key.id, mine.key)
        return wanted

    async def _send(self, peer_id: str, items: Sequence[Item], rulings: Mapping[str, bytes], *, last: bool) -> None:
        start = 0
        while start < len(items) or (last and start == 0 and not items):
            end, size = start, 0
            while end < len(items) and end - start < MAX_ITEMS:
                size += items[end].size()
                if end > start and size > MAX_PAGE:
                    break
                end += 1
            batch = items[start:end]
            body = ReplicateBody(PutBody.of(batch).items, last=last and end == len(items))
            errors = parse(await self._call(peer_id, REPLICATE, build(body)), PutAnswer).errors
            if body.last:
                self._begun.pop(peer_id, None)
            for item, error in zip(batch, errors, strict=False):
                if error and not (error.kind.is_temporary or error.code == Code.NOT_RESPONSIBLE):
                    under = rulings[item.key_id] if error.known_code.is_by_policy else b""
                    self.refusals.remember(peer_id, item.key_id, item.state or item.key_or_tombstone, under)
                if error:
                    _log.debug(
                        "a replica refused a repair",
                        peer_id=peer_id,
                        key_id=item.key_id,
                        code=error.code,
                        error=error.text[:200],
                    )
                else:
                    self.counters.repaired += 1
            if not items:
                return
            start = end

    async def _call(self, peer_id: str, method: str, body: object) -> object:
        if method != REPLICATE:
            self._begun[peer_id] = None
        answer = await self._network.call(peer_id, method, body, timeout=CALL_TIMEOUT)
        self.counters.messages += 2
        self.counters.bytes += size_of(body) + size_of(answer)
        return answer


def _ruling(mine: ResourceState, summary: Summary) -> bytes:
    """The digest of the key by whose policy a peer decides once it has ours: of the greater one; `NO_KEY` for none."""
    if summary.key is not None and (mine.key is None or mine.key.order() < summary.key.order()):
        return summary.key.digest
    return digest_of(mine.key) if mine.key is not None else NO_KEY


def _entries_at(
    places: Sequence[tuple[str, str]], horizon: ExpiryHorizon, transaction: Transaction
) -> tuple[list[IndexEntry], int]:
    """The entries at the first of these places, as many as one body holds, and of how many places they are."""
    found: list[IndexEntry] = []
    size = 0
    for number, place in enumerate(places):
        entry = transaction.index.entry(*place)
        entry = entry.fresh(horizon.owned, horizon.removed) if entry is not None else None
        size += entry.size() if entry is not None else 0
        if found and size > MAX_PAGE:
            return found, number
        if entry is not None:
            found.append(entry)
    return found, len(places)
