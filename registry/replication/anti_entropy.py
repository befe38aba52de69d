"""Compares resources with one peer and sends it what it lacks; both ends of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, TypeVar

import structlog
import trio
from cachetools import LRUCache

from overlay.errors import Refusal
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.delta import delta
from registry.model.expiry_horizon import ExpiryHorizon
from registry.protocol.messages import MAX_ITEMS, MAX_PAGE, Item, PutAnswer, PutBody, build, parse
from registry.protocol.network import Clock, Network
from registry.quorum.recently_sent import RecentlySent
from registry.replica.replica import Replica
from registry.replication.messages import (
    COMPARE,
    MAX_ENTRIES,
    MAX_SUMMARIES,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    ReplicateBody,
    Summary,
    size_of,
)
from registry.storage import Store

CALL_TIMEOUT: Final = 10.0  # seconds for one body
MAX_AWAITED: Final = 10_000  # resources of one caller that differed
MAX_CALLERS: Final = 256
YIELD_AFTER: Final = 16  # resources after which other tasks get their turn

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


Known = TypeVar("Known")


class ComparisonCounters:
    """Counts what comparing has cost this node since its start."""

    __slots__ = ("bytes", "messages", "repaired", "resources")

    def __init__(self) -> None:
        self.resources = 0
        self.repaired = 0
        self.messages = 0
        self.bytes = 0


class AntiEntropy:
    """Serves `registry.compare` and `registry.replicate`; `with_peer` is the asking end."""

    def __init__(self, network: Network, store: Store, replica: Replica, clock: Clock) -> None:
        self._network = network
        self._store = store
        self._replica = replica
        self._clock = clock
        self._refused = RecentlySent()
        self._awaited: LRUCache[str, set[str]] = LRUCache(MAX_CALLERS)
        self.counters = ComparisonCounters()
        network.serve(COMPARE, self._serve_compare)
        network.serve(REPLICATE, self._serve_replicate)

    async def with_peer(self, peer_id: str, key_ids: Sequence[str], *, last: bool) -> list[str]:
        """Compares these resources with a peer's and sends what it lacks. `last` says that this is all for now.

        Returns those that the peer doesn't feel responsible for: its view of the network may be older than ours, or
        newer. Raises CallFailed, InvalidValue for a malformed answer, StorageError.
        """
        left = list(key_ids)
        unwanted: list[str] = []
        while left:
            batch = left[:MAX_ENTRIES]
            items, compared = await self._missing(peer_id, batch, unwanted)
            del left[:compared]
            await self._send(peer_id, items, last=last and not left)
        if last and not key_ids:
            await self._send(peer_id, [], last=True)
        return unwanted

    async def _missing(self, peer_id: str, key_ids: Sequence[str], unwanted: list[str]) -> tuple[list[Item], int]:
        """Asks a peer what it has of the first of these; returns what it lacks, and how many were compared."""
        now = int(self._clock())
        horizon = ExpiryHorizon.at(now, self._replica.settings)
        entries = []
        for number, key_id in enumerate(key_ids, start=1):
            entries.append((key_id, await self._store.digest(key_id, horizon)))
            if number % YIELD_AFTER == 0:
                await trio.lowlevel.checkpoint()
        answer = parse(
            await self._call(peer_id, COMPARE, build(CompareBody(now, horizon, tuple(entries)))), CompareAnswer
        )
        compared = min(answer.compared, len(key_ids))
        if compared < 1:
            raise InvalidValue("the answer to a comparison compares nothing")
        self.counters.resources += compared
        items: list[Item] = []
        for summary in answer.summaries:
            if not 0 <= summary.number < compared:
                continue
            if not summary.wanted:
                unwanted.append(key_ids[summary.number])
                continue
            mine = horizon.stricter(answer.horizon).alive(await self._store.resource(key_ids[summary.number]))
            if mine.digest() != summary.digest:
                missing = [Item(*write) for write in delta(mine, summary.orders())]
                items.extend(item for item in missing if not self._refused.knows(peer_id, item))
            await trio.lowlevel.checkpoint()
        return items, compared

    async def _send(self, peer_id: str, items: Sequence[Item], *, last: bool) -> None:
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
            for item, error in zip(batch, errors, strict=False):
                if error and not (error.kind.is_temporary or error.code == Code.NOT_RESPONSIBLE):
                    self._refused.remember(peer_id, item)
                if error:
                    _log.debug(
                        "a replica refused a repair",
                        peer=peer_id,
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
        answer = await self._network.call(peer_id, method, body, timeout=CALL_TIMEOUT)
        self.counters.messages += 2
        self.counters.bytes += size_of(body) + size_of(answer)
        return answer

    async def _serve_compare(self, caller: str, body: object) -> object:
        try:
            request = parse(body, CompareBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        now, settings = int(self._clock()), self._replica.settings
        if abs(request.now - now) > 2 * max(settings.clock_skew, 1):
            _log.warning("a peer's clock differs too much to compare with it", peer=caller, seconds=request.now - now)
            raise Refusal(Code.CLOCK, f"this peer's clock says {now}, yours {request.now}")
        horizon = request.horizon.stricter(ExpiryHorizon.at(now, settings))
        summaries: list[Summary] = []
        slots = compared = 0
        for number, (key_id, digest) in enumerate(request.entries):
            if slots >= MAX_SUMMARIES:
                break
            compared += 1
            if not self._replica.ingest.is_responsible(key_id):
                summaries.append(Summary(number, wanted=False))
                continue
            if await self._known(self._store.digest(key_id, horizon)) == digest:
                self._note_compared(caller, [key_id])
            else:
                resource = horizon.alive(await self._known(self._store.resource(key_id)))
                summaries.append(Summary.of(number, resource))
                slots += len(resource.slots) + 1
                self._await_items(caller, key_id)
            if number % YIELD_AFTER == 0:
                await trio.lowlevel.checkpoint()
        return build(CompareAnswer(horizon, compared, tuple(summaries)))

    async def _known(self, query: Awaitable[Known]) -> Known:
        try:
            return await query
        except StorageError as error:
            _log.error("a comparison failed", error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error

    async def _serve_replicate(self, caller: str, body: object) -> object:
        try:
            request = parse(body, ReplicateBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        answer: object = build(PutAnswer(()))
        if request.items:
            answer = await self._replica.take(caller, PutBody(request.items), keyless=True)
        if request.last:
            self._note_compared(caller, self._awaited.pop(caller, set()))
            if caller in self._network.members():
                self._replica.catch_up.note_compared()
        return answer

    def _await_items(self, caller: str, key_id: str) -> None:
        """Remembers that a resource differs: it counts as compared once the caller has sent what is lacking here."""
        awaited = self._awaited.setdefault(caller, set())
        if len(awaited) < MAX_AWAITED:
            awaited.add(key_id)

    def _note_compared(self, caller: str, key_ids: Iterable[str]) -> None:
        if caller in self._network.members():
            for key_id in key_ids:
                self._replica.takeover.note_compared(key_id)
