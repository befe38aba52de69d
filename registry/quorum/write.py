"""Writes to a neighbourhood: to some replicas that pass it on to the others, successfully when enough have it on disk.

`registry.quorum.write_machine` decides who gets it from whom; here is what sends and waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from cachetools import LRUCache, TTLCache

from overlay.errors import CallFailed
from overlay.tasks import TaskOwner, TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, NodeOverloaded, StorageError
from registry.model.values import Tombstone
from registry.protocol.address_groups import AddressGroups
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import (
    PASSED_ON,
    Item,
    PassedOnAnswer,
    PassedOnBody,
    Spread,
    WriteOutcome,
    build,
    parse,
)
from registry.protocol.network import Network
from registry.quorum.doubts import Doubts
from registry.quorum.pass_on import write_id_of
from registry.quorum.read_machine import parted
from registry.quorum.recent_writes import RecentWrites
from registry.quorum.send_queue import LINGER, LONG_LINGER, Report, SendQueue
from registry.quorum.write_machine import Send, WriteMachine
from registry.replica.replica import Replica

REMEMBERED_WRITES: Final = 1024
MAX_UNDER_WAY: Final = 4096  # writes, and writes to the own disk; a disk that stalls makes them pile up
RETRY_AFTER: Final = 1.0  # seconds, in which a disk that works again takes them
RANKED_FOR: Final = 1.0  # seconds for which the random order of peers stays the same, so that writes share frames
MAX_RANKED: Final = 4096  # peers
STOPPING: Final = ErrorInfo(Code.STOPPING, "this node is stopping")
NOT_CONNECTED: Final = ErrorInfo(
    Code.NOT_CONNECTED, "not connected: no live member of the network is known; check the bootstrap addresses"
)

NOT_FOUND_IN_TIME: Final = ErrorInfo(
    Code.TIMEOUT, "the members nearest to the resource weren't found in time; try again, or wait longer"
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _QuorumWrite:
    """A write that is under way, or was lately. It outlives what is written, which may be large."""

    def __init__(self, write_id: str, factor: int) -> None:
        self.factor = factor
        self.write_id = write_id
        self.machine = WriteMachine((), here=None, factor=factor)
        self.refusal: ErrorInfo | None = None
        self.settled = trio.Event()
        self.reported = Wakeup()

    def outcome(self, *, timed_out: bool = False, told: int = 0) -> WriteOutcome:
        of = self.machine
        errors = of.errors if self.refusal is None else [self.refusal]
        return WriteOutcome(len(of.stored), len(of.targets), tuple(errors), timed_out, self.write_id, told)


class Writer:
    """Writes keys with one state to the replicas of a resource. `run` owns the writes, which go on after success and
    after their callers left."""

    def __init__(
        self,
        network: Network,
        replica: Replica,
        send_queue: SendQueue,
        recent_writes: RecentWrites,
        doubts: Doubts,
        groups: AddressGroups,
        randomness: random.Random,
        note_stored: Callable[[Item], None],
    ) -> None:
        """`recent_writes` and `doubts` are told of what replicas have taken. `note_stored` is called, synchronously,
        with what verified and the first replica has on disk now, whoever else is waited for."""
        self._network = network
        self._replica = replica
        self._send_queue = send_queue
        self._recent_writes = recent_writes
        self._doubts = doubts
        self._groups = groups
        self._random = randomness
        self._note_stored = note_stored
        self._tasks = TaskOwner()
        self._recent: LRUCache[str, _QuorumWrite] = LRUCache(REMEMBERED_WRITES)
        self._ranks: TTLCache[str, float] = TTLCache(MAX_RANKED, RANKED_FOR, timer=trio.current_time)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Owns writes until cancelled."""
        await self._tasks.run(task_status=task_status)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """Writes `item` to the whole neighbourhood (and a record to its host), as `registry.quorum.write_machine` says;
        returns when `factor` replicas have it on disk, when that has become impossible, or after `timeout` seconds.

        The rest goes on, also when this is cancelled: see `progress`. Raises NodeOverloaded.
        """
        if self._network.is_isolated():
            return _refused(NOT_CONNECTED)
        is_stored = self._replica.ingest.holds(item)  # by who made it here, verified and in one transaction
        fault = None if is_stored else self._replica.ingest.fault_of(item)
        if fault:  # nothing that fails verification is forwarded
            return _refused(fault.on(self._network.peer_id))
        if not self._tasks.is_open:
            return _refused(STOPPING)
        if self._tasks.count >= MAX_UNDER_WAY:
            raise NodeOverloaded("too many writes are under way", RETRY_AFTER)
        write = _QuorumWrite(write_id_of(item), factor)
        self._tasks.start_soon(self._run, write, item, is_stored)
        with trio.move_on_after(max(timeout, 0.0)) as waiting:
            await write.settled.wait()
        if waiting.cancelled_caught and not write.machine.targets:
            return WriteOutcome(stored=0, targets=0, errors=(NOT_FOUND_IN_TIME,), timed_out=True)
        return write.outcome(timed_out=waiting.cancelled_caught)

    async def progress(self, write_id: str, *, timeout: float) -> WriteOutcome | None:
        """Tells how far a recent write has come; None when it is forgotten. Those that pass it on are asked for their
        numbers, within `timeout` seconds."""
        write = self._recent.get(write_id)
        if write is None:
            return None
        told: list[int] = []

        async def ask(peer_id: str, most: int) -> None:
            try:
                answer = await self._network.call(peer_id, PASSED_ON, build(PassedOnBody(write_id)), timeout=timeout)
                told.append(min(max(parse(answer, PassedOnAnswer).stored, 0), most))
            except (CallFailed, InvalidValue) as error:
                _log.debug("the progress of a write wasn't told", peer_id=peer_id, error=str(error))

        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                for peer_id, share in write.machine.shares.items():
                    if share and peer_id in write.machine.stored and peer_id != self._network.peer_id:
                        nursery.start_soon(ask, peer_id, len(share))
        return write.outcome(told=sum(told))

    async def _run(self, write: _QuorumWrite, item: Item, is_stored: bool) -> None:
        try:
            await self._distribute(write, item, is_stored)
        except Exception:  # of one write; raised on, it would end the node
            _log.exception("a write failed", key_id=item.key_id)
            write.refusal = ErrorInfo(Code.INTERNAL, "internal error")
            write.settled.set()

    async def _distribute(self, write: _QuorumWrite, item: Item, is_stored: bool) -> None:
        """Sends a write until all that it was sent to have answered, or were made up for."""
        here = self._network.peer_id
        size = self._replica.settings.neighbourhood_size
        found = await self._network.neighbourhood(item.key_id, size)
        if not found:
            write.refusal = NOT_CONNECTED
            write.settled.set()
            return
        nearest, drawn = parted(found, size)
        of = write.machine = WriteMachine(
            sorted(nearest, key=self._rank),
            here=here if here in found else None,
            factor=write.factor,
            announcers=self._network.topics.peers_in(item.key_id),
            drawn=sorted(drawn, key=self._doubts.is_doubted),
            linked=frozenset(self._network.members()) if drawn else (),
            group_of=self._groups.of,
            doubted=frozenset(filter(self._doubts.is_doubted, found)),
        )
        self._recent[write.write_id] = write
        self._send(write, item, of.begin(trio.current_time()), is_stored)
        if here not in found and not is_stored and self._replica.ingest.has_part_in(item):
            # An owner and a host keep what is theirs; only replicas count.
            self._tasks.start_soon(self._store_here, item)
        if isinstance(item.state, Tombstone) and item.state.peer_id not in (*found, here):
            # The host renews what it signed, so it has to know when that ended; it isn't a replica and doesn't count.
            self._send_queue.put(item.state.peer_id, item, _ignore, urgent=False)
        while (until := of.wake_at()) is not None:
            with trio.move_on_at(until):
                await write.reported.wait()
            self._send(write, item, of.step(trio.current_time()), is_stored)
            if of.is_settled:  # also by those that took too long
                write.settled.set()

    def _rank(self, peer_id: str) -> tuple[bool, float]:
        """By which replicas are put in order: at random, but whoever is doubted last."""
        return self._doubts.is_doubted(peer_id), self._ranks.setdefault(peer_id, self._random.random())

    def _send(self, write: _QuorumWrite, item: Item, sends: Sequence[Send], is_stored: bool) -> None:
        of = write.machine
        announcers = self._network.topics.peers_in(item.key_id)
        own_share = of.shares.get(self._network.peer_id, ())

        def report(peer_id: str, error: ErrorInfo | None) -> None:
            of.report(peer_id, error)
            if error is None and peer_id != self._network.peer_id:
                self._doubts.note_stored(peer_id, item)
            if error is None and len(of.stored) == 1:
                self._recent_writes.remember(item)
                self._note_stored(item)
            if of.is_settled:
                write.settled.set()
            write.reported.set()

        for peer_id, share, urgent in sends:
            if peer_id != self._network.peer_id:
                spread = None if of.is_direct else Spread(share, of.targets, tuple(of.shares))
                # Who watches hears of it from the replicas that are in the topic.
                is_urgent = urgent or peer_id in announcers
                # Of the rest others see to their shares in the same time.
                linger = LONG_LINGER if peer_id in own_share else LINGER
                self._send_queue.put(peer_id, item, report, urgent=is_urgent, linger=linger, spread=spread)
            elif is_stored:
                report(peer_id, None)
            else:
                self._tasks.start_soon(self._store_here, item, report)

    async def _store_here(self, item: Item, report: Report | None = None) -> None:
        try:
            [error] = await self._replica.ingest.store([item], self._network.peer_id, verified=True)
        except StorageError as failure:
            error = ErrorInfo.of(failure)
        except Exception:  # of one write; raised on, it would end the node
            _log.exception("a write failed", key_id=item.key_id)
            error = ErrorInfo(Code.INTERNAL, "internal error")
        if report is not None:
            report(self._network.peer_id, error)


def _refused(error: ErrorInfo) -> WriteOutcome:
    return WriteOutcome(stored=0, targets=0, errors=(error,))


def _ignore(peer_id: str, error: ErrorInfo | None) -> None:
    """Drops a report that nobody waits for."""
