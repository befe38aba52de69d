"""Announces by calls to watchers with which no topic is shared, each at its own pace, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from overlay.errors import CallFailed
from overlay.limits.fair_quota import FairQuota, Holding
from overlay.tasks import TaskStatus, Wakeup, background
from registry.model.values import Key, KeyTombstone, Slot
from registry.protocol.messages import MAX_PAGE, build
from registry.protocol.network import Network
from registry.watch.messages import ANNOUNCE, MAX_ANNOUNCEMENTS_IN_CALL, AnnounceBody

MAX_BYTES: Final = 64 * 2**20  # that wait for all watchers together
MAX_BYTES_OF_WATCHER: Final = 4 * 2**20
OVERHEAD: Final = 256  # bytes of memory that one waiting announcement takes besides its payload, about
TELL_TIMEOUT: Final = 5.0  # seconds for a watcher to take what it is told

Change = tuple[str, Slot | type[Key] | type[KeyTombstone] | None]
"""The resource, and the slot that changed; None for the resource's key tombstone, `KeyTombstone` for the other one,
`Key` for its key."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _WaitingAnnouncements:
    __slots__ = ("holding", "payload")

    def __init__(self, payload: bytes, holding: Holding) -> None:
        self.payload = payload
        self.holding = holding


class DirectAnnouncements:
    """What waits for each watcher: of each slot the newest state. `run` owns the tasks that tell it.

    What is too much, of one watcher or of all, gives way: whoever is slower than what it watches gets the rest with the
    next renewal of its subscription.
    """

    def __init__(self, network: Network, give_up: Callable[[str], None]) -> None:
        """`give_up` is told of watchers that didn't take what they were told."""
        self._network = network
        self._give_up = give_up
        self._waiting: dict[str, dict[Change, _WaitingAnnouncements]] = {}
        self._quota = FairQuota(MAX_BYTES, MAX_BYTES_OF_WATCHER)
        self._changed = Wakeup()
        self.dropped = 0
        """Announcements that gave way since the start."""

    @property
    def waiting_bytes(self) -> int:
        """What waits for all watchers together."""
        return self._quota.total

    def put(self, watcher: str, change: Change, payload: bytes) -> None:
        """Has a watcher told of a change, in place of what it wasn't told of that slot yet."""
        self._drop(watcher, change)

        def give_way() -> None:
            self.dropped += 1
            self._drop(watcher, change)

        holding = self._quota.open(watcher, give_way, is_idle=lambda: True)
        if holding.take(len(payload) + OVERHEAD):
            self._waiting.setdefault(watcher, {})[change] = _WaitingAnnouncements(payload, holding)
            self._changed.set()
        else:
            self.dropped += 1

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs a task per watcher while there is something to tell it, so that a slow one delays nobody else."""
        busy: set[str] = set()

        async def tell(watcher: str) -> None:
            try:
                while self._waiting.get(watcher):
                    await self._tell_some(watcher)
            finally:
                busy.discard(watcher)

        async with background() as nursery:
            task_status.started()
            while True:
                await self._changed.wait()
                for watcher in [watcher for watcher in self._waiting if watcher not in busy]:
                    busy.add(watcher)
                    nursery.start_soon(tell, watcher)

    def _drop(self, watcher: str, change: Change) -> bytes | None:
        """Takes what waits out; its payload."""
        waiting = self._waiting.get(watcher, {})
        dropped = waiting.pop(change, None)
        if not waiting:
            self._waiting.pop(watcher, None)
        if dropped is None:
            return None
        dropped.holding.close()
        return dropped.payload

    async def _tell_some(self, watcher: str) -> None:
        items: list[tuple[str, bytes]] = []
        size = 0
        for change, waiting in list(self._waiting[watcher].items())[:MAX_ANNOUNCEMENTS_IN_CALL]:
            size += len(waiting.payload) + len(change[0].encode())
            if items and size > MAX_PAGE:
                break
            items.append((change[0], waiting.payload))
            self._drop(watcher, change)
        try:
            await self._network.call(watcher, ANNOUNCE, build(AnnounceBody(tuple(items))), timeout=TELL_TIMEOUT)
        except CallFailed as error:
            _log.debug("a watcher is given up", watcher=watcher, error=error.reason)
            for change in list(self._waiting.get(watcher, ())):
                self._drop(watcher, change)
            self._give_up(watcher)
