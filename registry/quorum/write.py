"""Writes to a neighbourhood: to all replicas at once, successfully when enough of them have it on disk."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import structlog
import trio
from cachetools import LRUCache

from overlay.tasks import TaskOwner, TaskStatus
from registry.codes import Code
from registry.errors import StorageError
from registry.model.values import Tombstone, digest_of
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ERRORS, Item, WriteOutcome
from registry.protocol.network import Network
from registry.quorum.send_queue import SendQueue
from registry.replica.replica import Replica

REMEMBERED_WRITES: Final = 1024
MAX_UNDER_WAY: Final = 4096  # writes to the own disk; a disk that stalls makes them pile up
STOPPING: Final = ErrorInfo(Code.STOPPING, "this node is stopping")
NOT_CONNECTED: Final = ErrorInfo(
    Code.NOT_CONNECTED, "not connected: no live member of the network is known; check the bootstrap addresses"
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Progress:
    """Counts how many replicas have stored a write that is under way, and why others didn't."""

    def __init__(self, targets: int, factor: int) -> None:
        self.targets = targets
        self.factor = max(factor, 1)
        self.stored = 0
        self.errors: list[ErrorInfo] = []
        self.settled = trio.Event()

    def report(self, peer_id: str, error: ErrorInfo | None) -> None:
        if error:
            self.errors.append(error.on(peer_id))
        else:
            self.stored += 1
        answered = self.stored + len(self.errors)
        # Once the others can't make up for it any more, waiting longer can't help either.
        if self.stored >= self.factor or self.stored + self.targets - answered < self.factor:
            self.settled.set()

    def outcome(self, write_id: str, *, timed_out: bool = False) -> WriteOutcome:
        return WriteOutcome(
            stored=self.stored,
            targets=self.targets,
            errors=tuple(self.errors[:MAX_ERRORS]),
            timed_out=timed_out,
            write_id=write_id,
        )


class Writer:
    """Writes keys with one state to the replicas of a resource. `run` owns the writes that go on after success."""

    def __init__(self, network: Network, replica: Replica, send_queue: SendQueue) -> None:
        self._network = network
        self._replica = replica
        self._send_queue = send_queue
        self._tasks = TaskOwner()
        self._recent: LRUCache[str, _Progress] = LRUCache(REMEMBERED_WRITES)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Owns writes to the own disk until cancelled."""
        await self._tasks.run(task_status=task_status)

    async def write(self, item: Item, *, factor: int, timeout: float) -> WriteOutcome:
        """Sends `item` to the whole neighbourhood (and a record to its host); returns when `factor` replicas have it on
        disk, when that has become impossible, or after `timeout` seconds. The rest goes on: see `progress`."""
        if self._network.is_isolated():
            return WriteOutcome(stored=0, targets=0, errors=(NOT_CONNECTED,))
        is_stored = self._replica.ingest.holds(item)  # by who made it here, verified and in one transaction
        fault = None if is_stored else self._replica.ingest.fault_of(item)
        if fault:  # nothing that fails verification is forwarded
            return WriteOutcome(stored=0, targets=0, errors=(fault.on(self._network.peer_id),))
        deadline = trio.current_time() + max(timeout, 0.0)
        targets: list[str] = []
        with trio.move_on_at(deadline) as lookup:
            targets = await self._network.neighbourhood(item.key_id, self._replica.settings.neighbourhood_size)
        if lookup.cancelled_caught or not targets:
            return WriteOutcome(stored=0, targets=0, errors=(NOT_CONNECTED,), timed_out=lookup.cancelled_caught)
        if not self._tasks.is_open:
            return WriteOutcome(stored=0, targets=0, errors=(STOPPING,))
        here = self._network.peer_id in targets
        progress = _Progress(len(targets), factor)
        write_id = self._remember(item, progress)
        if is_stored:
            if here:
                progress.report(self._network.peer_id, None)
        elif here and self._tasks.count >= MAX_UNDER_WAY:
            progress.report(self._network.peer_id, ErrorInfo(Code.OVERLOADED, "too many writes are under way"))
        elif here or self._replica.ingest.has_part_in(item):
            self._tasks.start_soon(self._store_here, item, progress if here else None)
        # When the own disk is all that the caller waits for, the others' copies may share frames with later ones.
        urgent = factor > 1 or not here
        announcers = self._network.topics.peers_in(item.key_id)
        for peer_id in targets:
            if peer_id != self._network.peer_id:
                # Who watches hears of it from the replicas that are in the topic.
                self._send_queue.put(peer_id, item, progress.report, urgent=urgent or peer_id in announcers)
        if isinstance(item.state, Tombstone) and item.state.peer_id not in (*targets, self._network.peer_id):
            # The host renews what it signed, so it has to know when that ended; it isn't a replica and doesn't count.
            self._send_queue.put(item.state.peer_id, item, _ignore, urgent=False)
        with trio.move_on_at(deadline) as waiting:
            await progress.settled.wait()
        return progress.outcome(write_id, timed_out=waiting.cancelled_caught)

    def progress(self, write_id: str) -> WriteOutcome | None:
        """Tells how far a recent write has come; None when it is forgotten."""
        progress = self._recent.get(write_id)
        return progress.outcome(write_id) if progress else None

    def _remember(self, item: Item, progress: _Progress) -> str:
        write_id = sha256(
            digest_of(item.key_or_tombstone) + (digest_of(item.state) if item.state else b"")
        ).hexdigest()[:32]
        self._recent[write_id] = progress
        return write_id

    async def _store_here(self, item: Item, progress: _Progress | None) -> None:
        try:
            [error] = await self._replica.ingest.store([item], self._network.peer_id, verified=True)
        except StorageError as failure:
            error = ErrorInfo.of(failure)
        except Exception:  # of one write; raised on, it would end the node
            _log.exception("a write failed", key_id=item.key_id)
            error = ErrorInfo(Code.INTERNAL, "internal error")
        if progress is not None:  # an owner and a host keep what is theirs; only replicas count
            progress.report(self._network.peer_id, error)


def _ignore(peer_id: str, error: ErrorInfo | None) -> None:
    """Drops a report that nobody waits for."""
