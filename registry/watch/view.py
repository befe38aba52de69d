"""One watched resource: the merge of all that was heard of it, and the replicas that keep telling.

At least two replicas hold a lease for us and announce. Each renewal compares what they know with what we know, so that
whatever an announcement that got lost would have said is fetched then. A replica that is lost is replaced at once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog
import trio

from overlay.errors import CallFailed
from registry.errors import InvalidValue, RegistryError
from registry.model.merge import ResourceState, is_spent, merged
from registry.model.values import Record, Slot
from registry.protocol.messages import Item
from registry.protocol.network import Clock
from registry.quorum.read_machine import ReadOutcome
from registry.settings import RegistrySettings
from registry.watch.event import Visible, same_content
from registry.watch.messages import SubscriptionReply, SubscriptionRequest

SOURCES: Final = 2  # replicas that hold a lease for us
RENEW: Final = 15.0  # seconds between renewals, of all resources at once
SOONEST: Final = 0.001  # seconds until the next renewal at least
SETTLE: Final = 1.0  # seconds until a new source is compared again: its topic wasn't joined when it was first
RETRY: Final = (0.25, 4.0)  # seconds until sources are looked for again, at first and at most
AVOID: Final = 10.0  # seconds for which a replica that refused or failed isn't asked
TIMEOUT: Final = 3.0  # seconds for a call
FRESH: Final = RENEW + 2 * TIMEOUT  # seconds after a comparison for which this knowledge is as good as a replica's
MAX_KNOWN: Final = 4096  # slots of one resource

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class WatchingPeer(Protocol):
    """What a watched resource needs of the peer that watches it."""

    settings: RegistrySettings
    clock: Clock
    peer_id: str
    phase: float

    def neighbours(self, key_id: str, /) -> Awaitable[list[str]]:
        """Who keeps a resource, nearest first, ready to be called."""
        ...

    def read(self, key_id: str, /) -> Awaitable[ReadOutcome]:
        """A read through the door, for what no replica gives a lease on. Raises RegistryError."""
        ...

    def own(self, key_id: str, /) -> Awaitable[ResourceState | None]:
        """What this peer itself keeps as a replica whose answers count."""
        ...

    async def subscribe(self, peer_id: str, request: SubscriptionRequest) -> SubscriptionReply:
        """Raises CallFailed, InvalidValue."""
        ...

    async def fetch(self, peer_id: str, key_id: str, known: ResourceState) -> ResourceState:
        """Raises CallFailed, InvalidValue."""
        ...

    def is_connected(self, peer_id: str) -> bool: ...


def next_renewal(now: float, phase: float) -> float:
    """All resources of a peer are renewed at the same time, so that one call per replica does it."""
    left = RENEW - (now - phase) % RENEW
    # Where rounding makes it now, it's the one after: else who renews never waits, until time goes on.
    return now + (left if left > SOONEST else left + RENEW)


class _Source:
    """A replica that holds a lease for us."""

    __slots__ = ("digest",)

    def __init__(self) -> None:
        self.digest = b""  # of what it knew when we last merged that


class View:
    """Owned by `Watches`, which runs `run`."""

    def __init__(self, key_id: str, around: WatchingPeer) -> None:
        self.key_id = key_id
        self.state = ResourceState()
        self.visible: Visible = {}
        self.versions: dict[Slot, int] = {}
        """How often the visible record of each slot has changed."""
        self.changed_at: dict[Slot, int] = {}
        """In which order slots changed last."""
        self.changed = trio.Event()
        """Set, and replaced, when something is visible, or ready, that wasn't."""
        self.is_ready = False
        self.on_topic = False
        self._around = around
        self._sources: dict[str, _Source] = {}
        self._avoided: dict[str, float] = {}
        self._confirmed = -FRESH
        self._poked = trio.Event()
        self._ticks = 0
        self._settle_at = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether a replica was compared with lately, and lives."""
        return self.is_ready and trio.current_time() - self._confirmed <= FRESH

    @property
    def sources(self) -> list[str]:
        """The replicas that hold leases for us."""
        return list(self._sources)

    def was_removed(self, slot: Slot) -> bool:
        """Whether what isn't visible (any more) was ended by its issuer or the resource's owner."""
        state = self.state.slots.get(slot)
        return (state is not None and not isinstance(state, Record)) or (
            state is None and self.state.key_tombstone is not None
        )

    def wake(self) -> None:
        """Lets everybody who waits look again."""
        self.changed.set()
        self.changed = trio.Event()

    def take(self, item: Item) -> bool:
        """Merges one verified update; whether it was news."""
        if item.state is not None:
            known = self.state.slots.get(item.state.slot)
            if known is not None and known.order() >= item.state.order():
                return False
            if known is None and self._is_full():
                return False  # no replica would have room for it; if one has, the next comparison tells
        return self.merge(item.as_resource())

    def _is_full(self) -> bool:
        rules = self._around.settings
        return len(self.visible) >= 2 * rules.records_per_key or len(self.state.slots) >= MAX_KNOWN

    def merge(self, other: ResourceState) -> bool:
        """Merges verified states; whether anything was news."""
        before = self.state
        after = merged(before, other)
        news = (
            after.key is not before.key
            or after.key_tombstone is not before.key_tombstone
            or any(before.slots.get(slot) is not state for slot, state in after.slots.items())
        )
        if news:
            self.state = after
            self.refresh()
        return news

    def refresh(self) -> None:
        """Finds out what is visible now, and lets go of what nobody would accept any more."""
        rules, now = self._around.settings, int(self._around.clock())
        spent = [slot for slot, state in self.state.slots.items() if is_spent(state, now, rules)]
        if spent:
            kept = [state for slot, state in self.state.slots.items() if slot not in set(spent)]
            self.state = ResourceState.of(self.state.key, kept, self.state.key_tombstone)
        records = self.state.records(now, rules) if self.state.key is not None else []
        visible = {record.slot: record for record in records}
        changed = False
        for slot in self.visible.keys() | visible.keys():
            old, new = self.visible.get(slot), visible.get(slot)
            if old is not new and (old is None or new is None or not same_content(old, new)):
                self._ticks += 1
                self.versions[slot] = self.versions.get(slot, 0) + 1
                self.changed_at[slot] = self._ticks
                changed = True
        self.visible = visible
        if len(self.versions) > 2 * MAX_KNOWN:
            self.versions = {slot: count for slot, count in self.versions.items() if slot in self.state.slots}
            self.changed_at = {slot: tick for slot, tick in self.changed_at.items() if slot in self.state.slots}
        if changed:
            self.wake()

    def poke(self) -> None:
        """Somebody came or went, or a source proved bad."""
        lost = [peer_id for peer_id in self._sources if not self._around.is_connected(peer_id)]
        for peer_id in lost:
            self._drop(peer_id, "lost")
        if lost or len(self._sources) < SOURCES:
            self._poked.set()

    def distrust(self, peer_id: str) -> None:
        """A source told what can't be true."""
        if peer_id in self._sources:
            self._drop(peer_id, "told what isn't signed")
            self._poked.set()

    def _drop(self, peer_id: str, why: str) -> None:
        _log.debug("a watched replica is replaced", key_id=self.key_id, peer=peer_id, why=why)
        self._sources.pop(peer_id, None)
        self._avoided[peer_id] = trio.current_time() + AVOID
        if not self._sources:
            self._confirmed = -FRESH

    async def run(self) -> None:
        """Keeps sources and compares with them until cancelled."""
        delay = RETRY[0]
        renew_at = next_renewal(trio.current_time(), self._around.phase)
        while True:
            self._poked = trio.Event()
            if trio.current_time() >= renew_at:
                renew_at = next_renewal(trio.current_time(), self._around.phase)
                await self._each(self._renew, self.sources)
            elif self._settle_at and trio.current_time() >= self._settle_at:
                self._settle_at = 0.0
                await self._each(self._renew, self.sources)
            await self._merge_own()
            if len(self._sources) < SOURCES:
                await self._find_sources()
            if not self._sources and not await self._is_kept_here():
                await self._read()
            self.refresh()
            if self._sources:
                delay = RETRY[0]
            wake_at = min(renew_at, self._next_expiry())
            if self._settle_at:
                wake_at = min(wake_at, self._settle_at)
            if not self._sources:
                wake_at = min(wake_at, trio.current_time() + delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                delay = min(delay * 2, RETRY[1])
            with trio.move_on_at(wake_at):
                await self._poked.wait()

    def _next_expiry(self) -> float:
        rules, now = self._around.settings, self._around.clock()
        ages = [
            min(
                record.timestamp_created + rules.expired_age,
                record.timestamp_issued + rules.record_lifetime,
            )
            - now
            for record in self.visible.values()
        ]
        return trio.current_time() + max(min(ages, default=RENEW), 0.0) + 0.01

    async def _each(self, act: Callable[[str], Awaitable[None]], peers: list[str]) -> None:
        async with trio.open_nursery() as nursery:
            for peer_id in peers:
                nursery.start_soon(act, peer_id)

    async def _merge_own(self) -> None:
        own = await self._around.own(self.key_id)
        if own is not None and (own.key is not None or own.key_tombstone is not None):
            self.merge(own)
            self._confirm()

    async def _is_kept_here(self) -> bool:
        own = await self._around.own(self.key_id)
        return own is not None and own.key is not None

    async def _find_sources(self) -> None:
        now = trio.current_time()
        self._avoided = {peer_id: until for peer_id, until in self._avoided.items() if until > now}
        candidates = [
            peer_id
            for peer_id in await self._around.neighbours(self.key_id)
            if peer_id != self._around.peer_id and peer_id not in self._sources and peer_id not in self._avoided
        ]
        while candidates and len(self._sources) < SOURCES:
            asked = candidates[: SOURCES - len(self._sources)]
            del candidates[: len(asked)]
            await self._each(self._renew, asked)

    async def _renew(self, peer_id: str) -> None:
        """Takes or renews a lease, and fetches what we lack."""
        try:
            reply = await self._around.subscribe(peer_id, SubscriptionRequest(self.key_id, self.on_topic))
            if reply.error:
                self._drop(peer_id, reply.error)
                return
            source = self._sources.get(peer_id)
            if source is None:
                source = _Source()
                self._settle_at = self._settle_at or trio.current_time() + SETTLE
            if reply.digest not in (source.digest, self.state.digest()):
                self.merge(await self._around.fetch(peer_id, self.key_id, self.state))
            source.digest = reply.digest
            if self._around.is_connected(peer_id):
                self._sources[peer_id] = source
                self._confirm()
        except (CallFailed, InvalidValue) as error:
            self._drop(peer_id, str(error))

    async def _read(self) -> None:
        try:
            outcome = await self._around.read(self.key_id)
        except RegistryError as error:
            _log.debug("a watched resource can't be read", key_id=self.key_id, error=str(error))
            return
        self.merge(outcome.resource)
        if not outcome.timed_out:
            self._make_ready()

    def _confirm(self) -> None:
        self._confirmed = trio.current_time()
        self._make_ready()

    def _make_ready(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self.wake()
