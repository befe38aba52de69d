"""Services that somebody asks for, each kept up to date by one watch for all who ask.

1. A service is followed from its first request on, and for `KEPT_FOR` seconds after its last one: so the next answer
   comes from memory, and a blocked query is told of each change.
2. One that isn't there is followed, too: whoever waits for it is told when it comes.
3. What is asked for last is kept, `KEPT` services that nobody waits for at most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec
import trio
from cachetools import LRUCache

from aqua_compat.http.consul.entries import Entry, EntryWriter
from overlay.tasks import Broadcast, TaskOwner, TaskStatus
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.reading import RecordHealth
from registry.model.values import Record, Slot
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent

KEPT: Final = 256
KEPT_FOR: Final = 60.0  # seconds
BODIES: Final = 32  # answers of one service that are kept ready, by what was asked

_GONE: Final = frozenset({EventKind.REMOVED, EventKind.EXPIRED})

HealthOf = Callable[[Slot, Iterable[str]], RecordHealth]


class FollowedService:
    """The instances of one service as they are now."""

    def __init__(self, label: str, watch: Watch, writer: EntryWriter, health_of: HealthOf) -> None:
        """`watch`: one that includes what is down."""
        self.label = label
        self._watch = watch
        self._writer = writer
        self._health_of = health_of
        self._records: dict[Slot, Record] = {}
        self._entries: dict[Slot, list[Entry]] = {}
        self._changed = Broadcast()
        self._digest: bytes | None = None
        self.bodies: LRUCache[Any, Any] = LRUCache(BODIES)
        """What was answered since the last change, by what was asked."""
        self.version = 0
        """Grows with each change of an instance; 0 until it is known which there are."""
        self.users = 0
        self.left_at = 0.0
        self.scope = trio.CancelScope()

    @property
    def key_id(self) -> str:
        """The id of its resource."""
        return self._watch.resource_id

    async def run(self) -> None:
        """Takes changes until its scope is cancelled."""
        with self.scope:
            async with self._watch as events:
                async for event in events:
                    self._take(event)

    @property
    def entries(self) -> list[Entry]:
        """All instances, whatever their health, in an order that stays."""
        return [entry for slot in sorted(self._entries) for entry in self._entries[slot]]

    @property
    def digest(self) -> bytes:
        """Differs when the instances do."""
        if self._digest is None:
            self._digest = sha256(msgspec.json.encode([entry.health for entry in self.entries])).digest()
        return self._digest

    async def wait_beyond(self, version: int) -> None:
        """Waits until there was a change after this version."""
        await trio.lowlevel.checkpoint()
        while self.version <= version:
            await self._changed.wait()

    def note_health(self, host: str) -> None:
        """What is known of the services on a host may have changed."""
        changed = False
        for slot in self._records:
            if slot.peer_id == host:
                changed = self._write(slot) or changed
        if changed:
            self._tell()

    def _take(self, event: WatchEvent) -> None:
        if event.record is None:
            self._records = {record.slot: record for record in event.records}
            self._entries = {}
            for slot in self._records:
                self._write(slot)
            self._tell()
            return
        slot = event.record.slot
        if event.kind in _GONE:
            self._records.pop(slot, None)
            changed = bool(self._entries.pop(slot, None))
        else:
            self._records[slot] = event.record
            changed = self._write(slot)
        if changed:
            self._tell()

    def _write(self, slot: Slot) -> bool:
        """Writes the entries of a record anew; whether they are others."""
        before = self._entries.get(slot, [])
        entries = self._writer.entries(self.label, self._records[slot], partial(self._health_of, slot))
        self._entries[slot] = entries
        return entries != before

    def _tell(self) -> None:
        self.version += 1
        self._digest = None
        self.bodies.clear()
        self._changed.send()


class FollowedServices:
    """All services that are followed, by the ids of their resources. `run` owns their tasks."""

    def __init__(self, watch: Callable[[str], Watch], health: HealthOfHosts) -> None:
        """`watch`: starts to watch a resource, with what is down."""
        self._watch = watch
        self._health = health
        self._followed: dict[str, FollowedService] = {}
        self._idle: LRUCache[str, None] = LRUCache(KEPT)
        self._tasks = TaskOwner()
        health.on_change(self.note_health)

    def __len__(self) -> int:
        return len(self._followed)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follows services until cancelled, and ends following those that nobody asked for in a while."""
        async with self._tasks.opened():
            task_status.started()
            while True:
                await trio.sleep(KEPT_FOR / 4)
                for key_id in list(self._idle):
                    if self._followed[key_id].left_at < trio.current_time() - KEPT_FOR:
                        self._end(key_id)

    def note_health(self, host: str) -> None:
        """What is known of the services on a host may have changed."""
        for followed in self._followed.values():
            followed.note_health(host)

    def known(self, key_id: str) -> FollowedService | None:
        """A service that is followed already and of which it is known which instances there are; that counts as
        asking for it."""
        followed = self._followed.get(key_id)
        if followed is None or not followed.version:
            return None
        if not followed.users:
            followed.left_at = trio.current_time()
            self._idle[key_id] = None
        return followed

    def peek(self, key_id: str) -> FollowedService | None:
        """`known`, which doesn't count as asking."""
        followed = self._followed.get(key_id)
        return followed if followed is not None and followed.version else None

    @asynccontextmanager
    async def used(self, label: str, key_id: str, writer: EntryWriter) -> AsyncIterator[FollowedService]:
        """A service, which is followed while the block runs. Raises InvalidValue."""
        followed = self._followed.get(key_id)
        if followed is None:
            followed = FollowedService(label, self._watch(key_id), writer, self._health.health_of)
            self._followed[key_id] = followed
            self._tasks.start_soon(followed.run)
        self._idle.pop(key_id, None)
        followed.users += 1
        try:
            yield followed
        finally:
            followed.users -= 1
            if not followed.users and self._followed.get(key_id) is followed:
                followed.left_at = trio.current_time()
                if len(self._idle) >= KEPT:
                    self._end(self._idle.popitem()[0])
                self._idle[key_id] = None

    def _end(self, key_id: str) -> None:
        self._idle.pop(key_id, None)
        self._followed.pop(key_id).scope.cancel()
