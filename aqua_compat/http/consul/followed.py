"""Services that somebody asks for, each kept up to date by one watch for all who ask.

1. A service is followed from its first request on, and for `KEPT_FOR` seconds after its last one: so the next answer
   comes from memory, and a blocked query is told of each change.
2. One that isn't there is followed, too: whoever waits for it is told when it comes.
3. What is asked for last is kept, `KEPT` services that nobody waits for at most.
4. A service may have thousands of instances, which anybody registers where its resource is open: they are written
   record by record, others have their turn in between, and a change costs as much as its own record does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec
import trio
from cachetools import LRUCache

from aqua_compat.http.consul.entries import WRITTEN_AT_ONCE, Entry, EntryWriter
from aqua_compat.http.ready import ReadyReply
from overlay.tasks import Broadcast, TaskOwner, TaskStatus
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.health_reader import RecordHealth
from registry.model.values import Record, Slot
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent

KEPT: Final = 256
KEPT_FOR: Final = 60.0  # seconds
KEPT_BYTES: Final = 2 * 2**20  # of answers of one service that are kept ready, by what was asked

_GONE: Final = frozenset({EventKind.REMOVED, EventKind.EXPIRED})

ServiceKey = tuple[str, str]
"""Datacenter and resource id: one resource may be in two of them."""
HealthOf = Callable[[Slot, Iterable[str]], RecordHealth]


class _WrittenRecord(NamedTuple):
    """The instances of which a record tells, and what differs when they do; empty without any."""

    entries: list[Entry]
    digest: bytes


_NOTHING: Final = _WrittenRecord([], b"")


def _size_of(ready: ReadyReply) -> int:
    assert isinstance(ready.reply.body, bytes)
    return len(ready.reply.body)


class FollowedService:
    """The instances of one service as they are now."""

    def __init__(
        self, label: str, watch: Watch, writer: EntryWriter, health_of: HealthOf, when_changed: Callable[[], None]
    ) -> None:
        """`watch`: one that includes what is down. `when_changed` is called with each change."""
        self.label = label
        self.writer = writer
        self._when_changed = when_changed
        self._watch = watch
        self._health_of = health_of
        self._records: dict[Slot, Record] = {}
        self._by_host: dict[str, set[Slot]] = {}
        self._written: dict[Slot, _WrittenRecord] = {}
        self._changed_meanwhile: set[str] | None = None
        """Hosts of which something else is known since a snapshot began to be written, while it is."""
        self._changed = Broadcast()
        self._digest: bytes | None = None
        self.bodies: LRUCache[Any, bytes] = LRUCache(KEPT_BYTES, len)
        """What was answered since the last change, by what was asked."""
        self.ready: LRUCache[Any, ReadyReply] = LRUCache(KEPT_BYTES, _size_of)
        """Whole answers of those, with their index, by what was asked."""
        self.version = 0
        """Grows with each change of an instance; 0 until it is known which there are."""
        self.users = 0
        self.left_at = 0.0
        self.scope = trio.CancelScope()

    @property
    def key(self) -> ServiceKey:
        """Which one it is."""
        return self.writer.datacenter, self._watch.resource_id

    async def run(self) -> None:
        """Takes changes until its scope is cancelled."""
        with self.scope:
            async with self._watch as events:
                async for event in events:
                    await self._take(event)

    @property
    def entries(self) -> list[Entry]:
        """All instances, whatever their health, in an order that stays."""
        return [entry for slot in sorted(self._written) for entry in self._written[slot].entries]

    @property
    def digest(self) -> bytes:
        """Differs when the instances do."""
        if self._digest is None:
            self._digest = sha256(b"".join(self._written[slot].digest for slot in sorted(self._written))).digest()
        return self._digest

    async def wait_beyond(self, version: int) -> None:
        """Waits until there was a change after this version."""
        await trio.lowlevel.checkpoint()
        while self.version <= version:
            await self._changed.wait()

    def note_health(self, host: str) -> None:
        """What is known of the services on a host may have changed."""
        if self._changed_meanwhile is not None:
            self._changed_meanwhile.add(host)
        changed = [self._write(slot) for slot in self._by_host.get(host, ())]
        if any(changed):
            self._tell()

    async def _take(self, event: WatchEvent) -> None:
        if event.record is None:
            await self._begin(event.records)
            self._tell()
        elif event.kind in _GONE:
            if self._drop(event.record.slot):
                self._tell()
        elif self._keep(event.record):
            self._tell()

    async def _begin(self, records: Iterable[Record]) -> None:
        """There are these from now on. Until they are written there is what there was."""
        written: dict[Slot, _WrittenRecord] = {}
        self._changed_meanwhile, known, since_rest = set(), list(records), 0
        for record in known:
            made = written[record.slot] = self._made(record)
            since_rest += len(made.entries)
            if since_rest >= WRITTEN_AT_ONCE:
                since_rest = 0
                await trio.lowlevel.checkpoint()
        changed, self._changed_meanwhile = self._changed_meanwhile, None
        self._records, self._written, self._by_host = {record.slot: record for record in known}, written, {}
        for slot in written:
            self._by_host.setdefault(slot.peer_id, set()).add(slot)
        for host in changed:
            for slot in self._by_host.get(host, ()):
                self._write(slot)

    def _made(self, record: Record) -> _WrittenRecord:
        entries = self.writer.entries(self.label, record, partial(self._health_of, record.slot))
        digest = sha256(msgspec.json.encode([entry.health for entry in entries])).digest()
        return _WrittenRecord(entries, digest) if entries else _NOTHING

    def _keep(self, record: Record) -> bool:
        """Whether it tells of other instances than before."""
        self._records[record.slot] = record
        self._by_host.setdefault(record.slot.peer_id, set()).add(record.slot)
        return self._write(record.slot)

    def _drop(self, slot: Slot) -> bool:
        """Whether it told of instances."""
        self._records.pop(slot, None)
        of_host = self._by_host.get(slot.peer_id, set())
        of_host.discard(slot)
        if not of_host:
            self._by_host.pop(slot.peer_id, None)
        return bool(self._written.pop(slot, _NOTHING).entries)

    def _write(self, slot: Slot) -> bool:
        """Writes the entries of a record anew; whether they are others."""
        before = self._written.get(slot, _NOTHING)
        made = self._written[slot] = self._made(self._records[slot])
        return made.digest != before.digest

    def _tell(self) -> None:
        self.version += 1
        self._digest = None
        self.bodies.clear()
        self.ready.clear()
        self._changed.send()
        self._when_changed()


class FollowedServices:
    """All services that are followed. `run` owns their tasks."""

    def __init__(self, watch: Callable[[str], Watch], health: HealthOfHosts, when_changed: Callable[[], None]) -> None:
        """`watch`: starts to watch a resource, with what is down. `when_changed` is called when any service changes."""
        self._watch = watch
        self._when_changed = when_changed
        self._health = health
        self._followed: dict[ServiceKey, FollowedService] = {}
        self._idle: LRUCache[ServiceKey, None] = LRUCache(KEPT)
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
                for key in list(self._idle):
                    if self._followed[key].left_at < trio.current_time() - KEPT_FOR:
                        self._end(key)

    def note_health(self, host: str) -> None:
        """What is known of the services on a host may have changed."""
        for followed in self._followed.values():
            followed.note_health(host)

    def known(self, key: ServiceKey) -> FollowedService | None:
        """A service that is followed already and of which it is known which instances there are; that counts as
        asking for it."""
        followed = self._followed.get(key)
        if followed is None or not followed.version:
            return None
        if not followed.users:
            followed.left_at = trio.current_time()
            self._idle.get(key)  # asked for last
        return followed

    def of(self, writer: EntryWriter) -> dict[str, FollowedService]:
        """Those written by `writer` of which it is known which instances there are, by resource id."""
        return {
            key_id: followed
            for (_, key_id), followed in self._followed.items()
            if followed.writer is writer and followed.version
        }

    @asynccontextmanager
    async def used(self, label: str, key_id: str, writer: EntryWriter) -> AsyncIterator[FollowedService]:
        """A service, which is followed while the block runs. Raises InvalidValue."""
        key = writer.datacenter, key_id
        followed = self._followed.get(key)
        if followed is None:
            watch = self._watch(key_id)
            followed = FollowedService(label, watch, writer, self._health.health_of, self._when_changed)
            self._followed[key] = followed
            self._tasks.start_soon(followed.run)
        self._idle.pop(key, None)
        followed.users += 1
        try:
            yield followed
        finally:
            followed.users -= 1
            if not followed.users and self._followed.get(key) is followed:
                followed.left_at = trio.current_time()
                if len(self._idle) >= KEPT:
                    self._end(self._idle.popitem()[0])
                self._idle[key] = None

    def _end(self, key: ServiceKey) -> None:
        self._idle.pop(key, None)
        self._followed.pop(key).scope.cancel()
