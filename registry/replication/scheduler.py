"""Decides when this node compares with whom: hourly, as in the original, and at once when a neighbourhood changes.

Rules (docs/design.md, Replication):
1. A newcomer is compared with for every resource of ours in whose neighbourhood it is; it does the same, so each side
   sends what the other lacks.
2. After a departure, for every resource that the departed kept, the peer that moved up is compared with. A departed
   peer gets some seconds to come back first.
3. A peer that a write didn't reach is compared with for that resource, later and later.
4. A node that isn't responsible any more compares like the others: so it hands its surplus over.
5. Of the replicas of a resource the nearest acts first, the others some seconds later: mostly they find nothing to do.
6. This is background work: two comparisons at a time, with a pause after each that is as long as it took.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import structlog
import trio

from overlay.discovery.keyspace import nearest, resource_position
from overlay.errors import CallFailed
from overlay.tasks import Broadcast, TaskStatus, Wakeup
from registry.errors import InvalidValue, StorageError
from registry.protocol.network import Network
from registry.replication.anti_entropy import AntiEntropy
from registry.settings import UpkeepSettings
from registry.storage import Store

SCANNED_AT_ONCE: Final = 256  # resources
AT_ONCE: Final = 2  # comparisons
COMPARED_AT_ONCE: Final = 512  # resources of one turn of a peer
LONGEST_PAUSE: Final = 1.0  # seconds
UNWANTED_RETRIES: Final = 5  # then the hourly comparison will do
RETRY_LIMIT: Final = 300.0  # seconds
MAX_FAILED: Final = 10_000  # resources remembered for a peer that writes didn't reach; beyond it, it gets all

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ReplicationStatus(msgspec.Struct, frozen=True):
    """Tells how far replication has come.

    `pending`: comparisons of a resource with a peer that are due. `settled`: none is, and the members are those that
    they were made for. The rest is counted since the node's start; `bytes` roughly.
    """

    settled: bool
    pending: int
    compared: int
    repaired: int
    messages: int
    bytes: int


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
        self._random = randomness
        self._members: set[str] = set()  # those that the pending comparisons are for
        self._departing: dict[str, float] = {}  # gone since
        self._due: dict[str, set[str]] = {}
        self._later: dict[str, set[str]] = {}
        self._wait_my_turn = Wakeup()
        self._retries: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._under_way: set[str] = set()
        self._scanning = False
        self._changed = Wakeup()
        self._work = Broadcast()
        self._done = Broadcast()

    def status(self) -> ReplicationStatus:
        """Takes a snapshot."""
        pending = sum(len(key_ids) for due in (self._due, self._later) for key_ids in due.values())
        pending += len(self._under_way)
        settled = not (pending or self._scanning or self._departing or self._changed.is_set())
        settled = settled and self._members == set(self._network.neighbours())
        counters = self._anti_entropy.counters
        return ReplicationStatus(
            settled, pending, counters.resources, counters.repaired, counters.messages, counters.bytes
        )

    def note_failure(self, peer_id: str, key_ids: Iterable[str]) -> None:
        """Has these resources compared with a peer that their writes didn't reach (rule 3)."""
        if peer_id == self._network.peer_id or peer_id not in self._network.neighbours():
            return  # rule 1 will bring it what it missed
        due = self._due.setdefault(peer_id, set())
        if len(due) < MAX_FAILED:
            due.update(key_ids)
        self._postpone(peer_id)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compares until cancelled."""
        self._network.on_membership_change(self._note_change)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._take_turns)
            for _ in range(AT_ONCE):
                nursery.start_soon(self._compare)
            task_status.started()

    async def replicate(self) -> int:
        """Compares every resource with its whole neighbourhood; how many comparisons that were. Nobody is asked twice
        at once: what is due to a peer already is not made due again."""
        made_due = 0
        after: str | None = ""
        while after is not None:
            page, after = await self._page(after)
            for key_id in page:
                for peer_id in await self._network.neighbourhood(key_id, self._size):
                    made_due += self._make_due(peer_id, key_id)
            self._wake()
            while any(self._due.values()) and self._has_work():  # a page at a time: what is due takes memory
                await self._done.wait()
        return made_due

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
                await self._scan(came, went)

    def _next_departure(self) -> float:
        if not self._departing:
            return math.inf
        return min(self._departing.values()) + self._settings.departure_grace

    async def _scan(self, came: set[str], went: set[str]) -> None:
        self._scanning = True
        for peer_id in went:
            self._members.discard(peer_id)
            self._forget(peer_id)
        try:
            after: str | None = ""
            while after is not None:
                page, after = await self._page(after)
                for key_id in page:
                    await self._make_due_after(key_id, came, went)
        except StorageError as error:
            _log.error("can't see what to replicate", error=str(error))
        self._scanning = False
        for peer_id in sorted(came):
            if peer_id in self._network.neighbours():
                self._members.add(peer_id)
                self._due.setdefault(peer_id, set())  # be it only to say that this is all
            else:
                self._changed.set()
        self._wait_my_turn.set()
        _log.info("neighbours changed", came=len(came), went=len(went), due=sum(map(len, self._due.values())))
        self._wake()

    async def _make_due_after(self, key_id: str, came: set[str], went: set[str]) -> None:
        keepers = await self._network.neighbourhood(key_id, self._size)
        behind = came.intersection(keepers)
        if went:
            behind |= set(keepers).difference(nearest(resource_position(key_id), [*keepers, *sorted(went)], self._size))
        first = next((peer_id for peer_id in keepers if peer_id not in behind), None)
        for peer_id in sorted(behind):
            if first == self._network.peer_id:
                self._make_due(peer_id, key_id)
            elif peer_id != self._network.peer_id:
                self._later.setdefault(peer_id, set()).add(key_id)

    async def _page(self, after: str) -> tuple[list[str], str | None]:
        """Reads a page of resources; also returns where the next page begins, None after the last."""
        page = await self._store.read(lambda transaction: transaction.key_ids(after, SCANNED_AT_ONCE))
        return page, page[-1] if len(page) == SCANNED_AT_ONCE else None

    def _make_due(self, peer_id: str, key_id: str) -> int:
        if peer_id == self._network.peer_id:
            return 0
        due = self._due.setdefault(peer_id, set())
        if key_id in due:
            return 0
        due.add(key_id)
        return 1

    async def _take_turns(self) -> None:
        """Makes due what others of the neighbourhood should have compared first (rule 5)."""
        while True:
            await self._wait_my_turn.wait()
            await trio.sleep(self._settings.turn * self._random.uniform(0.75, 1.25))
            later, self._later = self._later, {}
            for peer_id, key_ids in later.items():
                if peer_id in self._network.neighbours():
                    self._due.setdefault(peer_id, set()).update(key_ids)
            self._wake()

    def _forget(self, peer_id: str) -> None:
        for of_peer in (self._due, self._later, self._retries, self._not_before):
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
        """Makes one comparison after the other (rule 6)."""
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
        batch = sorted(due)[:COMPARED_AT_ONCE]
        rest = due.difference(batch)
        if rest:
            self._due[peer_id] = rest
        try:
            unwanted = await self._anti_entropy.with_peer(peer_id, batch, last=not rest)
        except (CallFailed, InvalidValue, StorageError) as error:
            if peer_id in self._network.neighbours():
                _log.info("a comparison failed", peer=peer_id, error=str(error))
                self._due.setdefault(peer_id, set()).update(batch)
                self._postpone(peer_id)
        except Exception:  # of one comparison; raised on, it would end the node
            _log.exception("a comparison failed", peer=peer_id)
        else:
            await self._try_unwanted_again(peer_id, unwanted)

    async def _try_unwanted_again(self, peer_id: str, unwanted: Sequence[str]) -> None:
        """Compares again later what the peer said it isn't responsible for: for some seconds after a change, peers see
        differently who is near."""
        kept = [key_id for key_id in unwanted if peer_id in await self._network.neighbourhood(key_id, self._size)]
        if kept and self._retries.get(peer_id, 0) < UNWANTED_RETRIES:
            self._due.setdefault(peer_id, set()).update(kept)
            self._postpone(peer_id)
        else:
            self._retries.pop(peer_id, None)

    def _postpone(self, peer_id: str) -> None:
        retries = self._retries[peer_id] = self._retries.get(peer_id, 0) + 1
        delay = min(2.0 ** min(retries, 30), RETRY_LIMIT) * self._random.uniform(0.5, 1.0)
        self._not_before[peer_id] = trio.current_time() + delay
        self._wake()
