"""Decides when this node compares with whom: hourly, as in the original, and at once when a neighbourhood changes.

Rules (docs/design.md, Replication):
1. When members come or go, only the ranges of the keyspace are compared whose keepers changed, with whoever became one
   of them: a newcomer, or a peer that moved up. A newcomer does the same, so each side sends what the other lacks. A
   departed peer gets some seconds to come back first; then it counts as a newcomer. Likewise where members begin to
   crowd; and with whoever moved up to the nearest, though it was a keeper as one of a region: what wavers between
   being dense or not was written to the nearest alone (`overlay.discovery.density`).
2. Hourly (`replicate` of `registry.settings`) all that this node and another keep is compared, a pair at a time.
3. A peer that a write didn't reach is compared with for that resource, later and later.
4. A node that isn't a keeper any more takes part in 1: so it hands its surplus over. What is left of it, where this
   node knows nobody, is compared with its keepers a little at a time, hourly.
5. Of the keepers of a resource the nearest acts first, the others some seconds later: mostly they find nothing to do.
6. A replica that lacks something, having refused or lost it, asks for a comparison (`registry.pull`), and is told when
   it is done.
7. This is background work: two comparisons at a time, with a pause after each that is as long as it took. Ranges come
   first; the resources that differ in them are due next. Who takes very long is left for others, and tried again later.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Final

import msgspec
import structlog
import trio

from overlay.errors import CallFailed, Refusal
from overlay.limits.token_bucket import TokenBuckets
from overlay.tasks import Broadcast, TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.protocol.messages import build
from registry.protocol.network import Network
from registry.replication.anti_entropy import AntiEntropy
from registry.replication.due import Due
from registry.replication.keepers import changes_in_steps, nearest_within
from registry.replication.messages import MAX_RANGES, PULL, PullAnswer
from registry.replication.nearby import within_reach
from registry.replication.ranges import EVERYWHERE, Block, Range, Ranges, difference, intersection, joined, union
from registry.replication.trees import pages
from registry.settings import UpkeepSettings
from registry.storage import Store

SURPLUS_AT_ONCE: Final = 256  # resources an hour whose keepers are looked up
AT_ONCE: Final = 2  # comparisons
COMPARED_AT_ONCE: Final = 512  # resources of one turn of a peer
PARTS_AT_ONCE: Final = 64  # of a block of the keyspace, each of which somebody else compares first: a few ms
LONGEST_PAUSE: Final = 1.0  # seconds
LONGEST_RESOURCES: Final = 60.0  # seconds of one turn; what was sent by then needn't be sent again
LONGEST_RANGES: Final = 300.0  # seconds of one turn, of which nothing is kept
UNWANTED_RETRIES: Final = 5  # then the hourly comparison will do
RETRY_LIMIT: Final = 300.0  # seconds
MAX_PULLED: Final = 8  # callers at the same time
PULL_RATE: Final = 0.5  # comparisons a second that one caller may ask for
PULL_BURST: Final = 4.0
_ALWAYS: Final = ExpiryHorizon(-1, -1, -1, -1, -1, -1)
MAX_FAILED: Final = 10_000  # resources remembered for a peer that writes didn't reach; beyond it, it gets all

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReplicationStatus(msgspec.Struct, frozen=True):
    """Tells how far replication has come.

    `pending`: comparisons of a resource, or of a range of the keyspace, with a peer that are due. `settled`: none is,
    and the members are those that they were made for. `refused`: what others refused to take lately, and is left out
    when they are compared with. The rest is counted since the node's start; `bytes` roughly.
    """

    settled: bool
    pending: int
    compared: int
    repaired: int
    messages: int
    bytes: int
    refused: int = 0


class ReplicationScheduler:
    """Has resources compared with the peers that may lack something of them; see the rules above."""

    def __init__(
        self,
        network: Network,
        store: Store,
        anti_entropy: AntiEntropy,
        settings: UpkeepSettings,
        neighbourhood_size: int,
        randomness: random.Random,
    ) -> None:
        self._network = network
        self._store = store
        self._anti_entropy = anti_entropy
        self._settings = settings
        self._size = neighbourhood_size
        self._surplus_after = 0  # position up to which rule 4 has come
        self._scanning = False
        self._unwanted: dict[str, Ranges] = {}
        self._random = randomness
        self._members: set[str] = set()  # those that the pending comparisons are for
        self._crowding = anti_entropy.view.crowding  # likewise
        self._departing: dict[str, float] = {}  # gone since
        self._due: defaultdict[str, Due] = defaultdict(Due)
        self._later: defaultdict[str, Due] = defaultdict(Due)
        self._wait_my_turn = Wakeup()
        self._retries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._under_way: set[str] = set()
        self._changed = Wakeup()
        self._work = Broadcast()
        self._done = Broadcast()
        self._pulled: set[str] = set()
        self._pulls = TokenBuckets(PULL_RATE, PULL_BURST)
        network.serve(PULL, self._serve_pull)

    def status(self) -> ReplicationStatus:
        """How replication stands now."""
        pending = sum(len(due) for dues in (self._due, self._later) for due in dues.values())
        pending += len(self._under_way)
        settled = not (pending or self._scanning or self._departing or self._changed.is_set())
        settled = settled and self._members == set(self._network.neighbours())
        counters = self._anti_entropy.counters
        return ReplicationStatus(
            settled,
            pending,
            counters.resources,
            counters.repaired,
            counters.messages,
            counters.bytes,
            len(self._anti_entropy.refusals),
        )

    async def _serve_pull(self, caller: str, body: object) -> object:  # noqa: ARG002 - it says nothing
        """Rule 6. Each caller has one comparison at a time, and pauses between them."""
        if caller not in self._network.neighbours():
            raise Refusal(Code.NOT_RESPONSIBLE, "this peer compares with its neighbours alone")
        if (
            caller in self._pulled
            or len(self._pulled) >= MAX_PULLED
            or not self._pulls.take(caller, trio.current_time())
        ):
            raise Refusal(Code.OVERLOADED, "this peer compares with others at present; ask again in some seconds")
        self._pulled.add(caller)
        try:
            self._due[caller].everything = True
            self._not_before.pop(caller, None)
            self._wake()
            while caller in self._due or caller in self._under_way:
                if self._not_before.get(caller, 0.0) > trio.current_time():
                    raise Refusal(Code.FAILED, "the comparison failed; it is tried again later")
                await self._done.wait()
        finally:
            self._pulled.discard(caller)
        return build(PullAnswer())

    def note_failure(self, peer_id: str, key_ids: Iterable[str]) -> None:
        """Has these resources compared with a peer that their writes didn't reach (rule 3)."""
        if peer_id == self._network.peer_id or peer_id not in self._network.neighbours():
            return  # rule 1 will bring it what it missed
        due = self._due[peer_id]
        if len(due.key_ids) < MAX_FAILED:
            due.key_ids.update(key_ids)
        else:
            due.everything = True
        if self._not_before.get(peer_id, 0.0) <= trio.current_time():  # many writes that fail together are one failure
            self._postpone(peer_id)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compares until cancelled."""
        self._network.on_membership_change(self._note_change)
        self._changed.set()  # by those who came before this
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._take_turns)
            for _ in range(AT_ONCE):
                nursery.start_soon(self._compare)
            task_status.started()

    async def replicate(self) -> int:
        """Compares all that this node keeps with everyone who keeps it too; with how many peers that was."""
        peers = set(self._network.neighbours())
        for peer_id in sorted(peers):
            self._due[peer_id].everything = True
        for key_id in await self._some_surplus():
            for peer_id in await self._network.neighbourhood(key_id, self._size):
                if peer_id != self._network.peer_id:
                    self._due[peer_id].key_ids.add(key_id)
                    peers.add(peer_id)
        self._wake()
        while self._has_work():
            await self._done.wait()
        return len(peers)

    async def _some_surplus(self) -> list[str]:
        """The next few resources here that this node isn't a keeper of, in turn (rule 4)."""
        elsewhere = difference(EVERYWHERE, await self._anti_entropy.view.kept())
        ahead = intersection(elsewhere, (Range(self._surplus_after, EVERYWHERE[0].end),))
        key_ids: list[str] = []
        self._surplus_after = 0
        async with aclosing(pages(self._store, ahead, _ALWAYS)) as found:
            async for page in found:
                for place in page:
                    key_ids.append(place.key_id)
                    if len(key_ids) == SURPLUS_AT_ONCE:
                        self._surplus_after = int.from_bytes(place.position, "big") + 1
                        return key_ids
        return key_ids

    def _note_change(self) -> None:
        """Notes who has gone: even after a short absence, writes may have been missed."""
        present = set(self._network.neighbours())
        for peer_id in self._members - present:
            self._departing.setdefault(peer_id, trio.current_time())
        self._changed.set()

    async def _watch(self) -> None:
        """Has what changes of membership ask for compared (rules 1 and 2)."""
        while True:
            with trio.move_on_at(self._next_departure()):
                await self._changed.wait()
            self._changed.clear()
            # A little later: many peers come and go together, and both ends needn't begin in the same moment.
            await trio.sleep(self._settings.join_delay * self._random.uniform(0.5, 1.0))
            now, present = trio.current_time(), set(self._network.neighbours())
            came = present - self._members | (present & self._departing.keys())
            went = {
                peer_id
                for peer_id, since in self._departing.items()
                if peer_id not in present and now - since >= self._settings.departure_grace
            }
            for peer_id in came | went:
                self._departing.pop(peer_id, None)
            if came or went:
                self._scanning = True
                await self._make_changes_due(came, went)
                self._scanning = False

    def _next_departure(self) -> float:
        if not self._departing:
            return math.inf
        return min(self._departing.values()) + self._settings.departure_grace

    async def _make_changes_due(self, came: set[str], went: set[str]) -> None:
        """Rules 1, 4 and 5."""
        here, view = self._network.peer_id, self._anti_entropy.view
        before, after = view.with_us(self._members - came), view.with_us((self._members - went) | came)
        for peer_id in went:
            self._members.discard(peer_id)
            self._forget(peer_id)
        now: defaultdict[str, list[Block]] = defaultdict(list)
        later: defaultdict[str, list[Block]] = defaultdict(list)
        crowdings = self._crowding, view.crowding
        self._crowding = view.crowding
        reach = within_reach(view.own, before, after, reach=view.reach, crowdings=crowdings)
        for change in chain(
            changes_in_steps(before, after, self._size, reach, crowdings=crowdings),
            changes_in_steps(before, after, self._size, reach),
        ):
            if change is None:
                await trio.lowlevel.checkpoint()
                continue
            block, were, are = change
            behind = are - were - {here}
            stayed = {peer_id: after[peer_id] for peer_id in are & were}
            # Where all keepers are new, nobody is first, and whoever has something of theirs hands it over later.
            parts = nearest_within(block, stayed, reach) if behind and stayed else ((block, None),)
            for number, (part, first) in enumerate(parts, start=1):
                if number % PARTS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                for peer_id in sorted(behind):
                    (now if first == here else later)[peer_id].append(part)
        for dues, blocks_of in ((self._due, now), (self._later, later)):
            for peer_id, blocks in blocks_of.items():
                dues[peer_id].ranges = union(dues[peer_id].ranges, joined(blocks))
        for peer_id in sorted(came):
            if peer_id in self._network.neighbours():
                self._members.add(peer_id)
                _ = self._due[peer_id]  # be it only to say that this is all
            else:
                self._changed.set()
        self._wait_my_turn.set()
        _log.info("neighbours changed", came=len(came), went=len(went), due=sum(map(len, self._due.values())))
        self._wake()

    async def _take_turns(self) -> None:
        """Makes due what others of the neighbourhood should have compared first (rule 5)."""
        while True:
            await self._wait_my_turn.wait()
            await trio.sleep(self._settings.head_start * self._random.uniform(0.75, 1.25))
            later, self._later = self._later, defaultdict(Due)
            for peer_id, due in later.items():
                if peer_id in self._network.neighbours():
                    self._due[peer_id].add(due)
            self._wake()

    def _forget(self, peer_id: str) -> None:
        for of_peer in (self._due, self._later, self._unwanted, self._retries, self._not_before):
            of_peer.pop(peer_id, None)

    def _wake(self) -> None:
        self._work.send()

    def _has_work(self) -> bool:
        """Whether anything is due now or under way, not only later."""
        return bool(self._under_way) or self._next_peer() is not None

    def _next_peer(self) -> str | None:
        now = trio.current_time()
        for peer_id in self._due:
            if peer_id not in self._under_way and self._not_before.get(peer_id, 0.0) <= now:
                return peer_id
        return None

    async def _compare(self) -> None:
        """Makes one comparison after the other (rule 7)."""
        while True:
            peer_id = self._next_peer()
            if peer_id is None:
                waiting = [self._not_before.get(peer, 0.0) for peer in self._due if peer not in self._under_way]
                with trio.move_on_at(min(waiting, default=math.inf)):
                    await self._work.wait()
                continue
            started = trio.current_time()
            self._under_way.add(peer_id)
            try:
                await self._compare_some(peer_id)
            finally:
                self._under_way.discard(peer_id)
                self._done.send()
                self._wake()
            await trio.sleep(min(trio.current_time() - started, LONGEST_PAUSE))

    async def _compare_some(self, peer_id: str) -> None:
        due = self._due.pop(peer_id)
        longest = LONGEST_RANGES if due.everything or due.ranges else LONGEST_RESOURCES
        try:
            with trio.move_on_after(longest) as turn:
                if due.everything or due.ranges:
                    await self._compare_ranges(peer_id, due)
                else:
                    await self._compare_resources(peer_id, due)
        except (CallFailed, InvalidValue, StorageError) as error:
            self._try_again_later(peer_id, due, str(error))
        except Exception:  # of one comparison; raised on, it would end the node
            _log.exception("a comparison failed", peer_id=peer_id)
        else:
            if turn.cancelled_caught:
                self._try_again_later(peer_id, due, f"it took longer than {longest:g} s")

    def _try_again_later(self, peer_id: str, due: Due, why: str) -> None:
        if peer_id in self._network.neighbours():
            _log.info("a comparison failed", peer_id=peer_id, error=why)
            self._due[peer_id].add(due)
            self._postpone(peer_id)

    async def _compare_ranges(self, peer_id: str, due: Due) -> None:
        shared = await self._anti_entropy.view.shared_with(peer_id) if due.everything else ()
        ranges = union(due.ranges, shared)
        batch, rest = ranges[:MAX_RANGES], ranges[MAX_RANGES:]
        is_last = not (rest or due.key_ids)
        compared = await self._anti_entropy.over_ranges(peer_id, batch, last=is_last)
        if compared.unwanted:
            asked_for = intersection(compared.unwanted, due.ranges)
            self._unwanted[peer_id] = union(self._unwanted.get(peer_id, ()), asked_for)
        if rest or due.key_ids or compared.differing:
            left = self._due[peer_id]
            left.ranges = union(left.ranges, rest)
            left.key_ids.update(due.key_ids, compared.differing)
        else:
            await self._try_unwanted_again(peer_id, [], is_all=True)

    async def _compare_resources(self, peer_id: str, due: Due) -> None:
        batch = sorted(due.key_ids)[:COMPARED_AT_ONCE]
        rest = due.key_ids.difference(batch)
        if rest:
            self._due[peer_id].key_ids |= rest
        unwanted = await self._anti_entropy.with_peer(peer_id, batch, last=not rest)
        await self._try_unwanted_again(peer_id, unwanted, is_all=not rest)

    async def _try_unwanted_again(self, peer_id: str, unwanted: Sequence[str], *, is_all: bool) -> None:
        """Compares again later what the peer said it isn't responsible for: for some seconds after a change, peers see
        differently who is near."""
        kept = [key_id for key_id in unwanted if peer_id in await self._network.neighbourhood(key_id, self._size)]
        ranges = self._unwanted.pop(peer_id, ()) if is_all else ()
        if ranges and peer_id in self._network.neighbours():
            ranges = intersection(ranges, await self._anti_entropy.view.kept_by(peer_id))
        if (kept or ranges) and self._retries.get(peer_id, 0) < UNWANTED_RETRIES:
            due = self._due[peer_id]
            due.key_ids.update(kept)
            due.ranges = union(due.ranges, ranges)
            self._postpone(peer_id)
        else:
            self._retries.pop(peer_id, None)

    def _postpone(self, peer_id: str) -> None:
        retries = self._retries[peer_id] = self._retries.get(peer_id, 0) + 1
        delay = min(2.0 ** min(retries, 30), RETRY_LIMIT) * self._random.uniform(0.5, 1.0)
        self._not_before[peer_id] = trio.current_time() + delay
        self._wake()
