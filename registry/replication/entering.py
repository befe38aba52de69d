"""Enters resources into their owners' indexes: what was just written through this node, and what nobody entered.

Rules (docs/design.md, Names and lists):
1. When a key, or a removal, that was written through this node is on disk, it is sent to those who keep the owner's
   index and aren't replicas of the resource: replicas that keep both enter it themselves. No write waits for it: what
   is written within `LINGER` seconds goes together, in one call for each of them.
2. The three replicas that are nearest to a resource see to it that what they store is entered, whoever wrote it, one
   after the other: each asks one of those who keep the index, at random, and sends it to all of them unless that one
   has it. So what an unmodified script writes is listed seconds later. The second and third do so minutes later, in
   case the nearest doesn't do its part: much is asked for together then.
3. Hourly some of the resources here are looked at likewise, in turn: what was stored before there were indexes, or
   while nobody of an index could be reached, gets in.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import structlog
import trio

from overlay.discovery.keyspace import peer_position, resource_position
from overlay.errors import CallFailed
from overlay.tasks import TaskStatus, Wakeup
from registry.errors import InvalidValue, StorageError
from registry.model.expiry_horizon import ExpiryHorizon
from registry.model.owner_index import IndexEntry
from registry.protocol.error_info import ErrorInfo
from registry.protocol.index_messages import ENTER, LISTS, EnterBody, ListsAnswer, ListsBody
from registry.protocol.messages import MAX_ITEMS, MAX_PAGE, Item, PutAnswer, build, parse
from registry.protocol.network import Network
from registry.replica.replica import Replica
from registry.storage import Change, Store, Transaction

NEAREST: Final = 3  # replicas that see to a resource's entry
LINGER: Final = 1.0  # seconds that what was written here waits for what is written next
FIRST_AFTER: Final = 3.0  # seconds: by then who wrote it has entered it
TURN: Final = 60.0  # seconds by which the second nearest waits for the nearest, which is alive
TICK: Final = 1.0  # seconds; all that became due within one is looked at together
RETRY_AFTER: Final = 60.0  # seconds, when nobody of an index could be reached
CALL_TIMEOUT: Final = 5.0  # seconds
AT_ONCE: Final = 256  # resources
LOOKED_THROUGH: Final = 2048  # resources an hour
MAX_DUE: Final = 16_384  # resources; 200 bytes each
LOOKED_UP_WITHIN: Final = 5.0  # seconds, all that was written; regions are known by then, mostly
MAX_WRITTEN: Final = 1024  # resources written through this node that wait; its replicas see to more

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Due(NamedTuple):
    at: float
    is_ranked: bool


class Entering:
    """Enters resources into indexes; see the rules above. `note` is to be told of commits."""

    def __init__(
        self, network: Network, store: Store, replica: Replica, period: float, randomness: random.Random
    ) -> None:
        """`period`: seconds between looking through some of what is here."""
        self._network = network
        self._store = store
        self._replica = replica
        self._period = period
        self._random = randomness
        self._due: dict[str, _Due] = {}
        self._next_look = math.inf
        self._changed = Wakeup()
        self._written: dict[str, IndexEntry] = {}
        self._any_written = Wakeup()
        self._looked_until = ""
        self.entered = 0
        """Entries that members of indexes took from here since the start."""

    def note(self, changes: Mapping[str, Change]) -> None:
        """Has what was stored just now looked at in a moment (rule 2)."""
        now = trio.current_time()
        for key_id, change in changes.items():
            is_news = (change.key_changed and change.key is not None) or change.key_tombstones
            if is_news and key_id not in self._due and len(self._due) < MAX_DUE:
                self._due[key_id] = _Due(_at_tick(now + FIRST_AFTER, TICK), False)
                if now + FIRST_AFTER < self._next_look:
                    self._changed.set()

    def enter_written(self, item: Item) -> None:
        """Has a key or key tombstone whose write through this node succeeded entered in a moment (rule 1)."""
        entry = IndexEntry.of(item.key_or_tombstone)
        known = self._written.get(entry.key_id)
        if known is None and len(self._written) >= MAX_WRITTEN:
            return  # its replicas see to it
        self._written[entry.key_id] = entry if known is None else known.merged(entry)
        self._any_written.set()

    async def _enter_all_written(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await self._any_written.wait()
                await trio.sleep(LINGER)
                self._any_written.clear()
                written, self._written = self._written, {}
                for peer_id, entries in (await self._keepers_of(written.values())).items():
                    nursery.start_soon(self._send_written, peer_id, entries)

    async def _send_written(self, peer_id: str, entries: Sequence[IndexEntry]) -> None:
        try:
            await self._send(peer_id, entries)
        except Exception:  # of some entries; raised on, it would end the node
            _log.exception("entries of an index weren't sent", peer_id=peer_id, count=len(entries))

    async def _keepers_of(self, written: Iterable[IndexEntry]) -> dict[str, list[IndexEntry]]:
        """What is to be sent to whom. What isn't known within `LOOKED_UP_WITHIN` seconds is left to the replicas."""
        size, to_send = self._replica.settings.neighbourhood_size, defaultdict[str, list[IndexEntry]](list)
        of_owners: dict[str, list[str]] = {}
        with trio.move_on_after(LOOKED_UP_WITHIN):
            for entry in written:
                owner = entry.owner_peer_id
                try:
                    told = await self._network.neighbourhood(entry.key_id, size)
                    if owner not in of_owners:
                        of_owners[owner] = await self._network.neighbourhood(owner, size)
                except Exception:  # of one write; raised on, it would end the node
                    _log.exception("a resource wasn't entered into its owner's index", key_id=entry.key_id)
                    continue
                for peer_id in of_owners[owner]:
                    if peer_id not in told:
                        to_send[peer_id].append(entry)
        return to_send

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Enters resources into their owners' indexes until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._enter_all_written)
            nursery.start_soon(self._see_to_due)
            nursery.start_soon(self._look_through_in_turn)
            task_status.started()

    async def _look_through_in_turn(self) -> None:
        while True:
            await trio.sleep(self._period * self._random.uniform(0.5, 1.0))
            try:
                await self.look_through()
            except StorageError as error:
                _log.error("what is stored couldn't be looked through", error=str(error))
            except Exception:  # of some resources; raised on, it would end the node
                _log.exception("resources weren't entered into their owners' indexes")

    async def look_through(self) -> None:
        """Sees to the next of the resources here (rule 3). Raises StorageError."""
        key_ids = await self._store.read(
            lambda transaction: transaction.positions.key_ids(self._looked_until, LOOKED_THROUGH)
        )
        self._looked_until = key_ids[-1] if len(key_ids) == LOOKED_THROUGH else ""
        ours: list[str] = []
        for key_id in key_ids:
            await trio.lowlevel.checkpoint()
            if self._rank(key_id) < NEAREST:
                ours.append(key_id)
        for start in range(0, len(ours), AT_ONCE):
            await self._see_to(ours[start : start + AT_ONCE])

    async def _see_to_due(self) -> None:
        while True:
            self._next_look = min((due.at for due in self._due.values()), default=math.inf)
            with trio.move_on_at(self._next_look) as waiting:
                await self._changed.wait()
            if not waiting.cancelled_caught:
                continue
            now = trio.current_time()
            ripe = [key_id for key_id, due in self._due.items() if due.at <= now][:AT_ONCE]
            ours = [key_id for key_id in ripe if self._is_our_turn(key_id, self._due.pop(key_id), now)]
            try:
                await self._see_to(ours)
            except StorageError as error:
                _log.error("what was stored couldn't be read again", error=str(error))
            except Exception:  # of some resources; raised on, it would end the node
                _log.exception("resources weren't entered into their owners' indexes", count=len(ours))

    def _is_our_turn(self, key_id: str, due: _Due, now: float) -> bool:
        """Whether this node sees to a resource now; it may do so later."""
        if due.is_ranked:
            return True
        rank = self._rank(key_id)
        if 0 < rank < NEAREST:
            self._due[key_id] = _Due(_at_tick(now + rank * TURN, TURN), True)
        return rank == 0

    def _rank(self, key_id: str) -> int:
        """How many members are nearer to a resource than this one."""
        at, own = resource_position(key_id), peer_position(self._network.peer_id)
        return sum(peer_position(peer_id) ^ at < own ^ at for peer_id in self._network.neighbours())

    async def _see_to(self, key_ids: Sequence[str]) -> None:
        if not key_ids:
            return
        settings = self._replica.settings
        horizon = ExpiryHorizon.at(self._replica.now(), settings)
        of_owners: defaultdict[str, list[IndexEntry]] = defaultdict(list)
        for entry in await self._store.read(partial(_entries_of, key_ids)):
            fresh = entry.fresh(horizon.owned, horizon.removed)
            if fresh is not None:
                of_owners[fresh.owner_peer_id].append(fresh)
        for owner, entries in of_owners.items():
            keepers = await self._network.neighbourhood(owner, settings.neighbourhood_size)
            if self._network.peer_id in keepers:
                await self._replica.ingest.enter(entries, self._network.peer_id)
            others = [peer_id for peer_id in keepers if peer_id != self._network.peer_id]
            if len(self._network.neighbours()) >= settings.neighbourhood_size:  # else all keep everything
                await self._enter_unless_known(owner, others, entries)

    async def _enter_unless_known(self, owner: str, keepers: Sequence[str], entries: Sequence[IndexEntry]) -> None:
        if not keepers:
            return
        held = await self._are_listed(self._random.choice(keepers), owner, entries)  # `AT_ONCE` fit into one body
        wanted = [entry for entry, is_held in zip(entries, held, strict=True) if not is_held]
        if wanted and not await self._send_to(keepers, wanted):
            again = trio.current_time() + RETRY_AFTER
            for entry in wanted[: max(MAX_DUE - len(self._due), 0)]:
                self._due.setdefault(entry.key_id, _Due(again, False))

    async def _are_listed(self, peer_id: str, owner: str, entries: Sequence[IndexEntry]) -> Sequence[bool]:
        body = build(ListsBody(owner, tuple((entry.key_id, entry.digest()) for entry in entries)))
        try:
            answer = parse(await self._network.call(peer_id, LISTS, body, timeout=CALL_TIMEOUT), ListsAnswer)
        except (CallFailed, InvalidValue) as error:
            _log.debug("an index wasn't told of", peer_id=peer_id, error=str(error))
            return [False] * len(entries)
        return answer.held if len(answer.held) == len(entries) else [False] * len(entries)

    async def _send_to(self, peer_ids: Sequence[str], entries: Sequence[IndexEntry]) -> int:
        """Sends entries to all of these; how many took some."""
        took = 0

        async def send(peer_id: str) -> None:
            nonlocal took
            took += await self._send(peer_id, entries)

        async with trio.open_nursery() as nursery:
            for peer_id in peer_ids:
                nursery.start_soon(send, peer_id)
        return took

    async def _send(self, peer_id: str, entries: Sequence[IndexEntry]) -> bool:
        """Sends entries to one of those who keep their index; whether it took some."""
        taken = 0
        for part in _parts(entries):
            try:
                if peer_id == self._network.peer_id:
                    errors: Sequence[ErrorInfo | None] = await self._replica.ingest.enter(part, peer_id)
                else:
                    answer = await self._network.call(peer_id, ENTER, build(EnterBody.of(part)), timeout=CALL_TIMEOUT)
                    errors = parse(answer, PutAnswer).errors
            except (CallFailed, InvalidValue, StorageError) as error:
                _log.debug("entries of an index weren't taken", peer_id=peer_id, error=str(error))
                break
            taken += sum(error is None for error in errors[: len(part)])
        self.entered += taken
        return bool(taken)


def _at_tick(time: float, tick: float) -> float:
    """The next of the moments, `tick` seconds apart, at which what is due then is looked at."""
    return math.ceil(time / tick) * tick


def _entries_of(key_ids: Iterable[str], transaction: Transaction) -> list[IndexEntry]:
    """What the keys and key tombstones of these resources, as they are stored, come to."""
    found: list[IndexEntry] = []
    for key_id in key_ids:
        stored = transaction.key(key_id)
        values = (*((stored.key,) if stored is not None else ()), *transaction.key_tombstones(key_id))
        if values:
            found.append(IndexEntry.of(*values))
    return found


def _parts(entries: Sequence[IndexEntry]) -> Iterable[list[IndexEntry]]:
    """Entries, as many at a time as one body holds."""
    part: list[IndexEntry] = []
    size = 0
    for entry in entries:
        size += entry.size()
        if part and (size > MAX_PAGE or len(part) == MAX_ITEMS):
            yield part
            part, size = [], entry.size()
        part.append(entry)
    if part:
        yield part
