"""Watches as server-sent events, with ids from which a client goes on where it was.

Rules:
1. All who watch a resource share one feed: an event is written once, whoever it goes to.
2. An event's id is the feed's name and the event's number in it. A client that comes back with one (`Last-Event-ID`)
   gets what happened since; where that isn't kept any more, or the feed is another one, it gets a snapshot, and what it
   knew before doesn't count.
3. A client that is slower than the changes are gets a snapshot too, in place of what was dropped meanwhile: nobody's
   events are queued beyond what the feed keeps for all.
4. A feed that nobody watches is kept for a while, so that whoever lost its connection goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Final, NamedTuple

import msgspec
import trio
from cachetools import LRUCache

from aqua_compat.http.places import RETRY_AFTER, WatchPlaces
from aqua_compat.http.problems import Problem
from aqua_compat.schema.json_codec import Json
from aqua_compat.schema.shapes import snapshot_as_json, watch_event_as_json
from overlay.tasks import Broadcast, TaskOwner
from registry.client.registry import Registry
from registry.model.trusted_issuers import Trusted
from registry.model.values import Record, Slot
from registry.watch.watch import Watch
from registry.watch.watch_event import EventKind, WatchEvent

SCHEMA: Final = "aqua-registry.watch-event/1"
KEPT_EVENTS: Final = 256  # of a feed
KEPT_BYTES: Final = 1024 * 1024  # of those, together
KEPT_FEEDS: Final = 64  # that nobody watches
KEPT_FOR: Final = 60.0  # seconds
HEARTBEAT: Final = 15.0  # seconds without an event, after which a comment shows that the connection is alive
PIECE: Final = 64 * 1024  # bytes

_GONE: Final = frozenset({EventKind.REMOVED, EventKind.EXPIRED})
"""What isn't in a snapshot after it; nor is what is down or doesn't pass, as in a watch's own first one."""


class Feed:
    """The events of one resource, numbered."""

    def __init__(self, watch: Watch, *, include_down: bool = False) -> None:
        """`include_down`: whether the watch tells of all live records, however they are."""
        self._watch = watch
        self._include_down = include_down
        self._name = token_hex(6)
        self._events: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._last = 0
        self._shown: dict[Slot, Record] = {}
        self._changed = Broadcast()
        self.readers = 0
        self.left_at = 0.0
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Takes events until its scope is cancelled."""
        with self.scope:
            async with self._watch as events:
                async for event in events:
                    self._take(event)

    async def after(self, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """What to send to who knows the events up to this id; it never ends."""
        position = self._position(last_event_id)
        while True:
            missed = None if position is None else self._since(position)
            if missed is None:
                if self._last:
                    position, pieces = self._snapshot()
                    for piece in pieces:  # made when the one before was sent, so that others have their turn
                        yield piece
                    continue
            elif missed:
                position = self._last
                for piece in missed:
                    yield piece
                continue
            with trio.move_on_after(HEARTBEAT) as patience:
                await self._changed.wait()
            if patience.cancelled_caught:
                yield b": alive\n\n"

    def _take(self, event: WatchEvent) -> None:
        if event.record is None:
            self._shown = {record.slot: record for record in event.records}
            self._forget()  # whoever knows less takes a snapshot
            self._last += 1
        else:
            if event.kind in _GONE or not (self._include_down or _is_usable(event)):
                self._shown.pop(event.record.slot, None)
            else:
                self._shown[event.record.slot] = event.record
            self._last += 1
            text = _text(event.kind.value, self._id(self._last), watch_event_as_json(event))
            self._events.append((self._last, text))
            self._size += len(text)
            while len(self._events) > KEPT_EVENTS or self._size > KEPT_BYTES:
                self._size -= len(self._events.popleft()[1])
        self._changed.send()

    def _forget(self) -> None:
        self._events.clear()
        self._size = 0

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _position(self, event_id: str) -> int | None:
        name, _, number = event_id.partition("-")
        is_ours = name == self._name and number.isascii() and number.isdigit() and len(number) < 16
        return int(number) if is_ours and int(number) <= self._last else None

    def _since(self, position: int) -> list[bytes] | None:
        """The events after one; None when they aren't all kept."""
        if position == self._last:
            return []
        if not self._events or self._events[0][0] > position + 1:
            return None
        return [text for number, text in self._events if number > position]

    def _snapshot(self) -> tuple[int, Iterator[bytes]]:
        records = [self._shown[slot] for slot in sorted(self._shown)]
        told = (snapshot_as_json(record, self._watch.health_of(record)) for record in records)
        return self._last, _snapshot_text(self._id(self._last), told, exists=self._watch.exists)


class _Wanted(NamedTuple):
    """What the readers of a feed want told."""

    resource_id: str
    trusted: Trusted | None
    include_down: bool


class Feeds:
    """All feeds of a node."""

    def __init__(self, registry: Registry, places: WatchPlaces) -> None:
        """`places`: of who watches."""
        self._registry = registry
        self._places = places
        self._feeds: dict[_Wanted, Feed] = {}
        self._idle: LRUCache[_Wanted, None] = LRUCache(KEPT_FEEDS)
        self._tasks = TaskOwner()

    async def run(self) -> None:
        """Owns the feeds' tasks, and ends feeds that nobody has watched for long."""
        async with self._tasks.opened():
            while True:
                await trio.sleep(KEPT_FOR / 4)
                for key, feed in list(self._feeds.items()):
                    if not feed.readers and feed.left_at < trio.current_time() - KEPT_FOR:
                        self._end(key)

    def check_room(self, client: str) -> None:
        """Raises Problem when a client, by its address, may not watch now."""
        if not self._tasks.is_open:
            raise Problem(503, "overloaded", "this node is stopping, or hasn't started", retry_after=RETRY_AFTER)
        self._places.check(client)

    @asynccontextmanager
    async def joined(
        self, resource_id: str, trusted: Trusted | None, client: str, *, include_down: bool = False
    ) -> AsyncIterator[Feed]:
        """The feed of a resource, which is there while the block runs, for a client at this address. `include_down`: of
        those, too, that are down or don't pass. Raises Problem, InvalidValue."""
        self.check_room(client)
        key = _Wanted(resource_id, trusted, include_down)
        feed = self._feeds.get(key)
        if feed is None:
            watch = self._registry.watch(resource_id, trusted=trusted, include_down=include_down)
            feed = self._feeds[key] = Feed(watch, include_down=include_down)
            self._tasks.start_soon(feed.run)
        self._idle.pop(key, None)
        feed.readers += 1
        try:
            with self._places.taken(client):
                yield feed
        finally:
            feed.readers -= 1
            if not feed.readers and self._feeds.get(key) is feed:
                feed.left_at = trio.current_time()
                if len(self._idle) >= KEPT_FEEDS:
                    self._end(self._idle.popitem()[0])
                self._idle[key] = None

    def _end(self, key: _Wanted) -> None:
        self._idle.pop(key, None)
        self._feeds.pop(key).scope.cancel()


def _is_usable(event: WatchEvent) -> bool:
    return event.kind is not EventKind.DOWN and (event.health is None or event.health.is_usable)


def _text(event: str, event_id: str, result: Json) -> bytes:
    data = msgspec.json.encode({"schema": SCHEMA, "result": result})
    return f"event: {event}\nid: {event_id}\ndata: ".encode() + data + b"\n\n"


def _snapshot_text(event_id: str, records: Iterable[Json], *, exists: bool) -> Iterator[bytes]:
    """One event in pieces: what has many records takes a while to write."""
    known = b"" if exists else b'"exists":false,'
    ready = bytearray(f"event: snapshot\nid: {event_id}\ndata: ".encode())
    ready += b'{"schema":' + msgspec.json.encode(SCHEMA) + b"," + known + b'"result":{"event":"snapshot","records":['
    for position, record in enumerate(records):
        if len(ready) > PIECE:
            yield bytes(ready)
            ready.clear()
        ready += (b"," if position else b"") + msgspec.json.encode(record)
    yield bytes(ready + b"]}}\n\n")
