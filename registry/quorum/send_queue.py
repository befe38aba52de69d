"""Sends puts to other replicas: those to one peer travel in one frame, and become one commit there.

A put that nobody waits for lingers a little after the one before, so that those that follow each other share a frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import structlog
import trio
from cachetools import LRUCache

from overlay.errors import CallFailed
from overlay.tasks import TaskOwner, TaskStatus, Wakeup
from registry.codes import Code
from registry.errors import InvalidValue, StorageError
from registry.protocol.error_info import ErrorInfo
from registry.protocol.messages import MAX_ITEMS, MAX_PAGE, PUT, Item, PutAnswer, PutBody, Spread, build, parse
from registry.protocol.network import Network

MAX_WAITING: Final = 8192  # items per peer; beyond it a put fails at once
LINGER: Final = 0.05  # seconds between frames of puts which nobody waits for
LONG_LINGER: Final = 0.5  # seconds; likewise, when enough others have it already
MAX_BYTES: Final = 64 * 2**20  # of items to all peers; likewise
MAX_PEERS: Final = 1024  # whoever issues a tombstone chooses the host that is to be told
LONGEST_PEER_ID: Final = 56  # bytes on the wire
SEND_TIMEOUT: Final = 6.0  # seconds for one frame

Report = Callable[[str, ErrorInfo | None], None]
"""Is told how a put ended: (peer id, why it was refused; None when it is on that peer's disk)."""
StoreHere = Callable[[Sequence[Item]], Awaitable[list[ErrorInfo | None]]]
"""Stores items on the own disk; per item why it was refused, or None."""
NoteFailure = Callable[[str, set[str]], None]
"""Is told of puts that didn't reach a peer: (peer id, their key ids)."""

_MALFORMED: Final = ErrorInfo(Code.BAD_ANSWER, "malformed answer to a put")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SendQueue:
    """Keeps one queue per peer, with at most one frame under way. `run` owns the sending tasks."""

    def __init__(self, network: Network, store_here: StoreHere, note_failure: NoteFailure) -> None:
        self._network = network
        self._store_here = store_here
        self._note_failure = note_failure
        self._waiting: dict[str, deque[_QueuedPut]] = {}
        self._due: dict[str, float] = {}  # when the next frame to a peer is to be sent
        self._sooner: dict[str, Wakeup] = {}
        self._tasks = TaskOwner()
        self._sent: LRUCache[str, float] = LRUCache(MAX_PEERS)  # when the last frame to a peer was sent
        self._bytes = 0
        self.frames = 0
        self.items = 0

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sends until cancelled; what isn't sent by then is left to replication."""
        await self._tasks.run(task_status=task_status)

    def put(
        self,
        peer_id: str,
        item: Item,
        report: Report,
        *,
        urgent: bool,
        linger: float = LINGER,
        spread: Spread | None = None,
    ) -> None:
        """Queues one put; `report` is called once, later, from the sending task. Unless it is `urgent` it may wait
        until `linger` seconds after the frame before. `spread`: to whom the peer is to pass it on."""
        if not self._tasks.is_open:
            report(peer_id, ErrorInfo(Code.STOPPING, "this node is stopping"))
            return
        put = _QueuedPut(item, spread, report)
        size = put.size()
        waiting = self._waiting.get(peer_id)
        if self._bytes + size > MAX_BYTES or (waiting is None and len(self._waiting) >= MAX_PEERS):
            report(peer_id, ErrorInfo(Code.OVERLOADED, "too many puts are waiting"))
            return
        if waiting is None:
            waiting = self._waiting[peer_id] = deque()
            self._due[peer_id] = math.inf
            self._sooner[peer_id] = Wakeup()
            self._tasks.start_soon(self._send_all, peer_id)
        if len(waiting) >= MAX_WAITING:
            report(peer_id, ErrorInfo(Code.OVERLOADED, "too many puts are waiting for this peer"))
            return
        waiting.append(put)
        self._bytes += size
        due = 0.0 if urgent else self._sent.get(peer_id, -math.inf) + linger
        if due < self._due[peer_id]:
            self._due[peer_id] = due
            self._sooner[peer_id].set()

    async def _send_all(self, peer_id: str) -> None:
        waiting, sooner = self._waiting[peer_id], self._sooner[peer_id]
        try:
            while waiting:
                while trio.current_time() < self._due[peer_id]:
                    with trio.move_on_at(self._due[peer_id]):
                        await sooner.wait()
                self._sent[peer_id] = trio.current_time()
                batch = self._next_batch(waiting)
                self._due[peer_id] = 0.0 if waiting else math.inf
                await self._send(peer_id, batch)
        finally:
            del self._waiting[peer_id]
            del self._due[peer_id]
            del self._sooner[peer_id]

    def _next_batch(self, waiting: deque[_QueuedPut]) -> list[_QueuedPut]:
        batch: list[_QueuedPut] = []
        size = 0
        while waiting and len(batch) < MAX_ITEMS:
            size += waiting[0].size()
            if batch and size > MAX_PAGE:
                break
            batch.append(waiting.popleft())
            self._bytes -= batch[-1].size()
        return batch

    async def _send(self, peer_id: str, batch: list[_QueuedPut]) -> None:
        self.frames += 1
        self.items += len(batch)
        items = [put.item for put in batch]
        errors: tuple[ErrorInfo | None, ...]
        try:
            if peer_id == self._network.peer_id:
                errors = tuple(await self._store_here(items))
            else:
                body = build(PutBody.of(items, [put.spread for put in batch]))
                errors = parse(await self._network.call(peer_id, PUT, body, timeout=SEND_TIMEOUT), PutAnswer).errors
        except (CallFailed, InvalidValue, StorageError) as error:
            _log.debug("puts weren't taken", peer_id=peer_id, items=len(batch), error=str(error))
            errors = (ErrorInfo.of(error),) * len(batch)
            self._note_failure(peer_id, {item.key_id for item in items})
        except Exception:  # of one frame; raised on, it would end the node
            _log.exception("a put failed", peer_id=peer_id)
            errors = (ErrorInfo(Code.INTERNAL, "internal error"),) * len(batch)
        for position, put in enumerate(batch):
            put.report(peer_id, errors[position] if position < len(errors) else _MALFORMED)


class _QueuedPut(NamedTuple):
    """One put that waits, and who is told how it ended."""

    item: Item
    spread: Spread | None
    report: Report

    def size(self) -> int:
        """Bytes on the wire, at most."""
        return self.item.size() + (LONGEST_PEER_ID * len(self.spread.targets) if self.spread else 0)
