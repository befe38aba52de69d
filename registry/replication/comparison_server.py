"""Answers peers that compare resources with this one, and notes what has been compared by that."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from overlay.errors import Refusal
from overlay.limits.time_slices import turn
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.merge import ResourceState
from registry.protocol.messages import PutAnswer, PutBody, build, parse
from registry.protocol.network import Clock, Network
from registry.replica.replica import Replica
from registry.replication.awaited import Awaited
from registry.replication.epoch import EPOCH, epoch_of
from registry.replication.hash_tree import TreeNode, is_prefix
from registry.replication.messages import (
    COMPARE,
    COMPARE_RANGES,
    MAX_RANGES,
    MAX_SUMMARIES,
    REPLICATE,
    CompareAnswer,
    CompareBody,
    RangesAnswer,
    RangesBody,
    ReplicateBody,
    SlotSummary,
    Summary,
    packed,
    slot_summaries,
    unpacked,
)
from registry.replication.ranges import Ranges, covers, difference
from registry.replication.trees import Trees
from registry.replication.view import RangeView
from registry.storage import Store
from registry.storage.in_turns import digest_in_turns, in_parts

MAX_AWAITED: Final = 65_536  # resources that differed; 200 bytes each
MAX_AWAITED_OF_ONE: Final = 10_000
MAX_AWAITED_RANGES: Final = 32_768  # that differed; 200 bytes each
MAX_AWAITED_RANGES_OF_ONE: Final = 8 * MAX_RANGES
YIELD_AFTER: Final = 16  # resources after which other tasks get their turn
_NODES_AT_ONCE: Final = 32  # of a tree, likewise
_PER_RESOURCE: Final = 1e-4  # seconds for one of usual size

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Known = TypeVar("Known")


class ComparisonServer:
    """Serves `registry.ranges`, `registry.compare` and `registry.replicate`."""

    def __init__(
        self, network: Network, store: Store, replica: Replica, clock: Clock, view: RangeView, trees: Trees
    ) -> None:
        self._network = network
        self._store = store
        self._replica = replica
        self._clock = clock
        self._view = view
        self._trees = trees
        self._awaited: Awaited[str] = Awaited(MAX_AWAITED, MAX_AWAITED_OF_ONE)
        self._awaited_ranges: Awaited[Ranges] = Awaited(MAX_AWAITED_RANGES, MAX_AWAITED_RANGES_OF_ONE)
        network.serve(COMPARE_RANGES, self._serve_ranges)
        network.serve(COMPARE, self._serve_compare)
        network.serve(REPLICATE, self._serve_replicate)

    async def _serve_compare(self, caller: str, body: object) -> object:
        try:
            request = parse(body, CompareBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        now, settings = int(self._clock()), self._replica.settings
        if abs(request.now - now) > 2 * max(settings.clock_skew, 1):
            _log.warning(
                "a peer's clock differs too much to compare with it", peer_id=caller, seconds=request.now - now
            )
            raise Refusal(Code.CLOCK, f"this peer's clock says {now}, yours {request.now}")
        horizon = request.horizon.stricter(ExpiryHorizon.at(now, settings))
        digests = await self._known(self._store.digests([key_id for key_id, _ in request.entries], horizon))
        summaries: list[Summary] = []
        slots = compared = 0
        for number, (key_id, digest) in enumerate(request.entries):
            if slots >= MAX_SUMMARIES:
                break
            compared += 1
            if not self._replica.ingest.is_responsible(key_id):
                summaries.append(Summary(number, wanted=False))
                continue
            if digests[key_id] == digest:
                self._note_compared(caller, [key_id])
            else:
                resource = horizon.fresh(await self._known(self._store.resource(key_id)))
                shown = resource.without(resource.withheld(horizon.certified))
                summaries.append(await _summary_of(number, resource, shown))
                slots += len(resource.slots) + 1
                self._await_items(caller, key_id)
            if number % YIELD_AFTER == 0:
                await turn(YIELD_AFTER * _PER_RESOURCE)
        return build(CompareAnswer(horizon, compared, tuple(summaries)))

    async def _serve_ranges(self, caller: str, body: object) -> object:
        try:
            request = parse(body, RangesBody)
            ranges = unpacked(request.ranges)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        if not all(map(is_prefix, request.prefixes)):
            raise Refusal(Code.INVALID, "malformed RangesBody: a prefix has steps of four bits")
        settings = self._replica.settings
        ahead = request.epoch - epoch_of(self._clock(), settings.clock_skew)
        if abs(ahead) > EPOCH + 2 * max(settings.clock_skew, 1):
            _log.warning("a peer's clock differs too much to compare with it", peer_id=caller, seconds=ahead)
            raise Refusal(Code.CLOCK, f"your clock is {ahead} seconds ahead of this peer's")
        mine = ExpiryHorizon.at(request.epoch, settings)
        horizon = request.horizon or mine
        if horizon.certified < 0:  # of a peer that doesn't know policies yet
            horizon = msgspec.structs.replace(horizon, certified=mine.certified)
        taken = await self._view.taken()
        other_rules, too_much = mine.stricter(horizon) != horizon, bool(difference(ranges, taken))
        if other_rules or too_much:
            told = packed(taken)[:MAX_RANGES] if too_much else None
            return build(RangesAnswer(False, horizon=mine if other_rules else None, ranges=told))
        tree = await self._known(
            self._trees.for_caller(caller, ranges, horizon, anew=bool(request.root), by_own_rules=horizon == mine)
        )
        if not request.root:
            nodes: list[TreeNode] = []
            async for part in in_parts(map(tree.node, request.prefixes), _NODES_AT_ONCE):
                nodes += part
            return build(RangesAnswer(False, tuple(nodes)))
        if tree.digest() != request.root:
            if caller in self._network.members():  # whose word counts in the end
                self._awaited_ranges.add(caller, ranges, len(ranges))
            return build(RangesAnswer(False, (tree.node(b""),)))
        self._note_ranges_compared(caller, [ranges])
        if request.last:
            self._note_all_compared(caller)
        return build(RangesAnswer(True))

    async def _serve_replicate(self, caller: str, body: object) -> object:
        try:
            request = parse(body, ReplicateBody)
        except InvalidValue as error:
            raise Refusal(Code.INVALID, str(error)) from error
        answer: object = build(PutAnswer(()))
        if request.items:
            answer = await self._replica.take(caller, PutBody(request.items), keyless=True)
        if request.last:
            self._note_all_compared(caller)
        return answer

    async def _known(self, query: Awaitable[Known]) -> Known:
        try:
            return await query
        except StorageError as error:
            _log.error("answering a comparison failed", error=str(error))
            raise Refusal(Code.STORAGE, "the disk refused") from error

    def _note_all_compared(self, caller: str) -> None:
        """A peer has compared all that it meant to, and sent what was lacking here."""
        self._note_compared(caller, self._awaited.take(caller))
        self._note_ranges_compared(caller, self._awaited_ranges.take(caller))
        if caller in self._network.members():
            self._replica.catch_up.note_compared(caller)

    def _note_ranges_compared(self, caller: str, several: Iterable[Ranges]) -> None:
        if caller in self._network.members():
            for ranges in several:
                self._replica.takeover.note_compared_where(partial(covers, ranges))

    def _await_items(self, caller: str, key_id: str) -> None:
        """Remembers that a resource differs: it counts as compared once the caller has sent what is lacking here."""
        if caller in self._network.members():  # whose word counts in the end
            self._awaited.add(caller, key_id)

    def _note_compared(self, caller: str, key_ids: Iterable[str]) -> None:
        if caller in self._network.members():
            for key_id in key_ids:
                self._replica.takeover.note_compared(key_id)


async def _summary_of(number: int, resource: ResourceState, shown: ResourceState) -> Summary:
    """The summary of a resource, which may have thousands of slots, for the entry `number`. Its digest is of what is
    `shown`; it tells the orders of what is withheld too, lest a peer goes on sending what those win over."""
    slots: list[SlotSummary] = []
    async for part in in_parts(slot_summaries(resource)):
        slots += part
    summary = Summary.of(number, resource, slots)
    if shown is resource:
        return summary
    return msgspec.structs.replace(summary, digest=await digest_in_turns(shown))
