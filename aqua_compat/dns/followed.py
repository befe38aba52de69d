"""What is known of the resources whose names are asked: the ones asked for lately are watched, so that answers are at
hand.

Rules:
1. A resource that nobody asked for lately is resolved, within a deadline, so many at a time; those who ask for it
   meanwhile wait for the same answer. What comes of it counts for a second, also that there is none, so that names made
   up cost little.
2. One that exists is watched from then on, as long as it is asked for every five minutes. Of those that are watched
   the one asked for longest ago gives way. Only so many begin in a minute: whoever asks for all names that there are
   makes no watch of each.
3. What a watch tells, or a host says of its services, is known a moment later; what changes all the time is looked
   through 20 times a second at most.
4. To read values of records takes long: it is done once for each, in a thread where there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import trio
from cachetools import TTLCache

from aqua_compat.dns.providers import ABSENT, Providers, providers_of
from overlay.limits.token_bucket import TokenBuckets
from overlay.tasks import TaskOwner, Wakeup, in_thread
from registry.client.registry import Registry
from registry.codes import Code
from registry.health.health_of_hosts import HealthOfHosts
from registry.health.health_reader import RecordHealth
from registry.model.endpoints import Instance, instances_in
from registry.model.values import Record, Slot

KEPT_FOR: Final = 300.0  # seconds that a watch is kept after somebody asked
COUNTS_FOR: Final = 1.0  # seconds for which what was resolved counts
MOST_RESOLVED: Final = 2048  # answers that are kept so long
PAUSE: Final = 0.05  # seconds between two looks at one resource
BEGIN_PER_SECOND: Final = 4.0  # watches
AT_ONCE: Final = 16  # records that are looked through in one turn of the loop
IN_LOOP: Final = 16_384  # characters of values that are read without a thread: about a millisecond

_Parsed = Mapping[Slot, tuple[Record, Sequence[Instance]]]


class Unanswered(Exception):
    """What a resource has isn't known, and wasn't found out in time."""


class _FollowedResource:
    def __init__(self, asked_at: float) -> None:
        self.providers: Providers | None = None
        self.hosts: frozenset[str] = frozenset()
        self.asked_at = asked_at
        self.changed = Wakeup()
        self.scope = trio.CancelScope()


class FollowedNames:
    """Knows, or finds out, what resources have. `run` owns the watches."""

    def __init__(
        self, registry: Registry, health: HealthOfHosts, *, max_followed: int, max_resolving: int, timeout: float
    ) -> None:
        """`timeout`: seconds in which a resource must be resolved."""
        self._registry = registry
        self._health = health
        self._timeout = timeout
        self._max_resolving = max_resolving
        self._max_followed = max_followed
        self._followed: dict[str, _FollowedResource] = {}
        self._resolved: TTLCache[str, Providers] = TTLCache(MOST_RESOLVED, COUNTS_FOR, timer=trio.current_time)
        self._resolving: dict[str, trio.Event] = {}
        self._begin = TokenBuckets(BEGIN_PER_SECOND, max_followed)
        self._tasks = TaskOwner()
        health.on_change(self._note_health)

    @property
    def followed(self) -> int:
        """How many resources are watched."""
        return len(self._followed)

    def at_hand(self, resource_id: str) -> Providers | None:
        """What is known of a resource; None where it has to be found."""
        followed = self._followed.get(resource_id)
        if followed is None:
            return self._resolved.get(resource_id)
        followed.asked_at = trio.current_time()
        return followed.providers if followed.providers is not None else self._resolved.get(resource_id)

    async def find(self, resource_id: str) -> Providers:
        """What a resource has that isn't known. Raises Unanswered."""
        running = self._resolving.get(resource_id)
        if running is None:
            if len(self._resolving) >= self._max_resolving or not self._tasks.is_open:
                raise Unanswered("too many names are being resolved")
            running = self._resolving[resource_id] = trio.Event()
            self._tasks.start_soon(self._resolve, resource_id, running)
        with trio.move_on_after(2 * self._timeout):
            await running.wait()
        providers = self.at_hand(resource_id)
        if providers is None:
            raise Unanswered("it couldn't be resolved")
        return providers

    async def run(self) -> None:
        """Owns the tasks, and ends watches of what nobody asks for."""
        async with self._tasks.opened():
            while True:
                await trio.sleep(KEPT_FOR / 10)
                now = trio.current_time()
                for resource_id, followed in list(self._followed.items()):
                    if followed.asked_at < now - KEPT_FOR:
                        self._end(resource_id)

    async def _resolve(self, resource_id: str, done: trio.Event) -> None:
        try:
            with trio.move_on_after(self._timeout):
                resolved = await self._registry.resolve_resource(
                    resource_id, 1, timeout=self._timeout, include_down=True
                )
                if resolved.records is not None:
                    parsed = await _parsed(resolved.records, {})
                    self._resolved[resource_id] = await self._judged(parsed)
                    self._follow(resource_id)
                elif resolved.code in _ABSENT:
                    self._resolved[resource_id] = ABSENT
        finally:
            del self._resolving[resource_id]
            done.set()

    def _follow(self, resource_id: str) -> None:
        now = trio.current_time()
        if not self._tasks.is_open or resource_id in self._followed or not self._begin.take("all", now):
            return
        while len(self._followed) >= self._max_followed:
            self._end(min(self._followed, key=lambda each: self._followed[each].asked_at))
        followed = self._followed[resource_id] = _FollowedResource(now)
        self._tasks.start_soon(self._watch, resource_id, followed)

    def _end(self, resource_id: str) -> None:
        self._followed.pop(resource_id).scope.cancel()

    async def _watch(self, resource_id: str, followed: _FollowedResource) -> None:
        with followed.scope:
            await trio.lowlevel.checkpoint()  # where this node stops, watches may have ended
            async with self._registry.watch(resource_id, include_down=True) as watch, trio.open_nursery() as nursery:
                await anext(watch)

                async def look() -> None:
                    parsed: _Parsed = {}
                    while True:
                        parsed = await _parsed(watch.records, parsed)
                        followed.hosts = frozenset(slot.peer_id for slot in parsed)
                        followed.providers = await self._judged(parsed) if watch.exists else ABSENT
                        await followed.changed.wait()
                        await trio.sleep(PAUSE)
                        followed.changed.clear()

                nursery.start_soon(look)
                async for _ in watch:
                    followed.changed.set()
                nursery.cancel_scope.cancel()
        if self._followed.get(resource_id) is followed:  # the peer stops
            del self._followed[resource_id]

    async def _judged(self, parsed: _Parsed) -> Providers:
        found: dict[Slot, tuple[Sequence[Instance], RecordHealth]] = {}
        for number, (slot, (_, instances)) in enumerate(parsed.items()):
            found[slot] = instances, self._health.health_of(slot, [each.id for each in instances])
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        if sum(len(instances) for instances, _ in found.values()) > 64 * AT_ONCE:
            return await in_thread(providers_of, found)
        return providers_of(found)

    def _note_health(self, host: str) -> None:
        for followed in self._followed.values():
            if host in followed.hosts:
                followed.changed.set()


_ABSENT: Final = frozenset({Code.KEY_NOT_EXISTS, Code.KEY_REMOVED, Code.INVALID})


async def _parsed(records: Iterable[Record], before: _Parsed) -> _Parsed:
    """The instances of records, those that were there before as they were."""
    known: dict[Slot, tuple[Record, Sequence[Instance]]] = {}
    new: list[Record] = []
    for record in records:
        old = before.get(record.slot)
        if old is not None and (old[0] is record or old[0].metadata.value == record.metadata.value):
            known[record.slot] = old
        else:
            new.append(record)
    if sum(len(record.metadata.value) for record in new) > IN_LOOP:
        read = await in_thread(_read, new)
    else:
        read = _read(new)
    return known | {record.slot: (record, instances) for record, instances in zip(new, read, strict=True)}


def _read(records: Sequence[Record]) -> list[tuple[Instance, ...]]:
    return [instances_in(record.metadata.value) for record in records]
