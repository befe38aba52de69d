"""Lets others find a peer after its relays or addresses changed, by a signed record kept near its position.

Rules:
1. A peer record is soft state, in memory. Its peer publishes it anew when its relays change and from time to time; it
   is believed for `lifetime` seconds after the time at which its peer signed it.
2. It is kept by the members nearest to the peer's position. Only its own peer may have a member send it on to them, so
   that light clients needn't look up. A member that is sent one verifies it, and keeps it only if it is near.
3. The record with the greatest sequence wins. A member that is full refuses new ones until some expire.
4. A peer that finds one verifies it too: the members asked can withhold it, or tell an older one, but not invent one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Final

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from overlay.discovery.keyspace import peer_position
from overlay.discovery.lookup import Lookup
from overlay.discovery.peer_record import MAX_BYTES, BadPeerRecord, OpenPeerRecord, PeerRecord
from overlay.errors import CallFailed, PeerIdError, Refusal
from overlay.limits.token_bucket import TokenBuckets
from overlay.rpc.links import Links
from overlay.settings import PeerRecordSettings
from overlay.tasks import TaskStatus, Wakeup

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

PUT_METHOD: Final = "overlay/put-peer-record"
GET_METHOD: Final = "overlay/get-peer-record"

_KEPT_BY: Final = 8  # members nearest to a peer, each of which keeps its record
_SPARE: Final = 8  # after a change, members differ in which of them are near
_SETTLING: Final = 0.5  # seconds after a change before it is published, since changes come in groups
_ASK_TIMEOUT: Final = 2.0  # seconds
_NODES_ASKED: Final = 3
_LOOKUP_RATE: Final = 5.0  # lookups per second for one peer, each of which asks several
_LOOKUP_BURST: Final = 100.0


class _RecordPut(Struct, frozen=True, array_like=True):
    """Keep a record; `send_on`: pass it on to the members near its peer, too."""

    sealed: Annotated[bytes, Meta(max_length=MAX_BYTES)]
    send_on: bool


class _Get(Struct, frozen=True, array_like=True):
    """Asks for a peer's record; `look_up`: ask the members near the peer."""

    peer_id: Annotated[str, Meta(min_length=1, max_length=64)]
    look_up: bool


class PeerRecords:
    """Publishes one peer's own record, keeps those of peers near its position, and finds any."""

    def __init__(
        self,
        links: Links,
        lookup: Lookup,
        settings: PeerRecordSettings,
        *,
        member: bool,
        says: Callable[[], object],
        own: Callable[[float], PeerRecord],
        open_sealed: OpenPeerRecord,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`says()`: what this peer's record would say now, to be compared. `own(now)`: it as of now, signed. `clock`:
        seconds since 1970."""
        self._links = links
        self._lookup = lookup
        self._settings = settings
        self._member = member
        self._says = says
        self._own = own
        self._open_sealed = open_sealed
        self._clock = clock
        self._kept: dict[str, PeerRecord] = {}
        self._sent_on = TokenBuckets(settings.rate, settings.burst, debt=settings.burst)
        self._received = TokenBuckets(
            settings.rate * _KEPT_BY, settings.burst * _KEPT_BY, debt=settings.burst * _KEPT_BY
        )
        self._looked_up = TokenBuckets(_LOOKUP_RATE, _LOOKUP_BURST, debt=_LOOKUP_BURST)
        self._advertised = trio.Event()
        self._changed = Wakeup()
        if member:
            links.serve(PUT_METHOD, self._answer_put)
            links.serve(GET_METHOD, self._answer_get)
            self._advertised.set()

    def advertise(self) -> None:
        """Publish this peer's record from now on; members do anyway."""
        self._advertised.set()

    def note_change(self) -> None:
        """To be called when the relays or the addresses of this peer may have changed."""
        self._changed.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Publish this peer's record when it changed, and before others forget it, until cancelled."""
        task_status.started()
        await self._advertised.wait()
        published: PeerRecord | None = None
        said: object = None
        retry = self._settings.retry_delay
        while True:
            self._changed.clear()
            says, now = self._says(), self._clock()
            if published is None or says != said or self._is_due(published, now):
                peer_record = self._own(now)
                published, said = peer_record if await self._publish(peer_record) else None, says
            # Longer each time: refused attempts are charged too.
            wait, retry = retry, min(2 * retry, self._settings.retry_delay_limit)
            if published is not None or not self._lookup.members():
                wait, retry = self._settings.interval, self._settings.retry_delay
            with trio.move_on_after(wait):
                await self._changed.wait()
            await trio.sleep(_SETTLING)

    def _is_due(self, published: PeerRecord, now: float) -> bool:
        """Whether it was published so long ago that others will forget it."""
        return now - published.sequence / 1_000_000 >= self._settings.interval

    async def find(self, peer_id: str, *, timeout: float) -> PeerRecord | None:
        """The newest record of a peer that the members near it know, within `timeout` seconds."""
        found: list[PeerRecord] = []
        with trio.move_on_after(timeout):
            if self._member:
                await self._look_up(peer_id, found)
            else:
                for node in self._lookup.members()[:_NODES_ASKED]:
                    await self._ask(node, _Get(peer_id, look_up=True), found)
                    if found:
                        break
        return max(found, key=lambda peer_record: peer_record.sequence, default=None)

    def _is_fresh(self, peer_record: PeerRecord) -> bool:
        age = self._clock() - peer_record.sequence / 1_000_000
        return -self._settings.clock_skew <= age <= self._settings.lifetime

    async def _publish(self, peer_record: PeerRecord) -> bool:
        """Send our own record out; whether any member took it."""
        takers: list[str] = []
        if self._member:
            await self._send_on(peer_record, takers)
        else:
            for node in self._lookup.members()[:_NODES_ASKED]:
                await self._put(node, _RecordPut(peer_record.sealed, send_on=True), takers)
                if takers:
                    break
        return bool(takers)

    async def _send_on(self, peer_record: PeerRecord, takers: list[str]) -> None:
        position = peer_position(peer_record.peer_id)
        if peer_record.peer_id == self._links.peer_id:  # a member is linked to those near it, or will be told of it
            near = self._lookup.known_nearest(position, _KEPT_BY)
        else:
            near = await self._lookup.nearest(position, _KEPT_BY)
        async with trio.open_nursery() as nursery:
            for member in near:
                if member == self._links.peer_id:
                    with suppress(Refusal):  # others may have room
                        self._keep(peer_record)
                elif member != peer_record.peer_id:
                    nursery.start_soon(self._put, member, _RecordPut(peer_record.sealed, send_on=False), takers)

    async def _put(self, member: str, put: _RecordPut, takers: list[str]) -> None:
        try:
            await self._links.call(member, PUT_METHOD, [put.sealed, put.send_on], timeout=_ASK_TIMEOUT)
        except CallFailed as error:
            log.debug("a member didn't take a peer record", peer_id=member, error=str(error))
        else:
            takers.append(member)

    async def _look_up(self, peer_id: str, found: list[PeerRecord]) -> None:
        own = self._known(peer_id)
        if own is not None:
            found.append(own)
        near = await self._lookup.nearest(peer_position(peer_id), _KEPT_BY)
        async with trio.open_nursery() as nursery:
            for member in near:
                if member not in (self._links.peer_id, peer_id):
                    nursery.start_soon(self._ask, member, _Get(peer_id, look_up=False), found)

    async def _ask(self, member: str, get: _Get, found: list[PeerRecord]) -> None:
        try:
            answer = await self._links.call(member, GET_METHOD, [get.peer_id, get.look_up], timeout=_ASK_TIMEOUT)
            if answer is None:
                return
            peer_record = self._open_sealed(msgspec.convert(answer, bytes, builtin_types=(bytes,)))
        except (CallFailed, msgspec.ValidationError, BadPeerRecord) as error:
            log.debug("a member told no peer record", peer_id=member, error=str(error))
            return
        if peer_record.peer_id == get.peer_id and self._is_fresh(peer_record):
            found.append(peer_record)

    def _known(self, peer_id: str) -> PeerRecord | None:
        peer_record = self._kept.get(peer_id)
        return peer_record if peer_record is not None and self._is_fresh(peer_record) else None

    def _keep(self, peer_record: PeerRecord) -> None:
        """Remember a record that is newer than the one known. Raises `Refusal`."""
        before = self._known(peer_record.peer_id)
        if before is not None and before.sequence >= peer_record.sequence:
            return
        if peer_record.peer_id not in self._kept and len(self._kept) >= self._settings.max_kept:
            self._kept = {peer_id: kept for peer_id, kept in self._kept.items() if self._is_fresh(kept)}
            if len(self._kept) >= self._settings.max_kept:
                raise Refusal("overloaded", "too many peer records are kept here")
        self._kept[peer_record.peer_id] = peer_record

    async def _answer_put(self, caller: str, body: object) -> object:
        try:
            put = msgspec.convert(body, _RecordPut, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Refusal("malformed", str(error)) from error
        now = trio.current_time()
        if not self._received.take(caller, now) or (put.send_on and not self._sent_on.take(caller, now)):
            raise Refusal("overloaded", "too many peer records from this peer")
        try:
            peer_record = self._open_sealed(put.sealed)
        except BadPeerRecord as error:
            raise Refusal("malformed", str(error)) from error
        if not self._is_fresh(peer_record):
            raise Refusal("stale", "the peer record is old, or the clocks differ too much")
        if put.send_on:
            if caller != peer_record.peer_id:
                raise Refusal("malformed", "only its own peer may have a peer record sent on")
            takers: list[str] = []
            await self._send_on(peer_record, takers)
        elif not self._lookup.is_responsible(peer_position(peer_record.peer_id), _KEPT_BY + _SPARE):
            raise Refusal("not-responsible", "others are nearer to the peer")
        self._keep(peer_record)
        return None

    async def _answer_get(self, caller: str, body: object) -> object:
        try:
            get = msgspec.convert(body, _Get)
            peer_position(get.peer_id)
        except (msgspec.ValidationError, PeerIdError) as error:
            raise Refusal("malformed", "not a peer id") from error
        peer_record = self._known(get.peer_id)
        if get.look_up:
            if not self._looked_up.take(caller, trio.current_time()):
                raise Refusal("overloaded", "too many lookups for this peer")
            peer_record = await self.find(get.peer_id, timeout=_ASK_TIMEOUT)
        return None if peer_record is None else peer_record.sealed
