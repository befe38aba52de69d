"""All services of one owner of which a node knows: what `/v1/catalog` and `/v1/health/state` are answered from.

It is looked through again after a change, at most once in `SETTLE` seconds and only when somebody asks, and after
`STALE` seconds without one: what expires makes no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import trio
from cachetools import LRUCache

from aqua_compat.http.consul.entries import WRITTEN_AT_ONCE, Entry, EntryWriter
from aqua_compat.http.consul.followed import FollowedServices, HealthOf
from aqua_compat.http.consul.known_names import KnownNames
from overlay.tasks import Broadcast
from registry.model.merge import ResourceState
from registry.model.values import Record

SETTLE: Final = 0.2  # seconds
STALE: Final = 10.0
AT_ONCE: Final = 20  # services that are looked at before others have their turn
KEPT_BYTES: Final = 16 * 2**20  # of answers that are kept ready, by what was asked

StateOf = Callable[[str], Any]
"""Reads what is stored of a resource; an awaitable of ResourceState."""
RecordsOf = Callable[[ResourceState], list[Record]]
"""The live records of a resource."""


class Survey(NamedTuple):
    """What there was when it was looked through. `services`: label to instances, none where a resource has none."""

    version: int
    services: Mapping[str, tuple[Entry, ...]]
    answers: LRUCache[Any, Any]


class Catalog:
    """The services of one owner."""

    def __init__(
        self,
        owner: str,
        writer: EntryWriter,
        names: KnownNames,
        followed: FollowedServices,
        state_of: StateOf,
        records_of: RecordsOf,
        health_of: HealthOf,
    ) -> None:
        self.owner = owner
        self.writer = writer
        self._names = names
        self._followed = followed
        self._state_of = state_of
        self._records_of = records_of
        self._health_of = health_of
        self._looking = trio.Lock()
        self._survey: Survey | None = None
        self._looked_at = -STALE
        self._changes = 1
        self._changed = Broadcast()

    @property
    def latest(self) -> Survey | None:
        """What there was at the last look."""
        return self._survey

    def note_change(self) -> None:
        """Something changed that may be told of."""
        self._changes += 1
        self._changed.send()

    async def survey(self) -> Survey:
        """What there is now, up to `SETTLE` seconds ago. Raises StorageError."""
        async with self._looking:
            survey, age = self._survey, trio.current_time() - self._looked_at
            if survey is not None and age < STALE and (survey.version == self._changes or age < SETTLE):
                return survey
            version, self._looked_at = self._changes, trio.current_time()
            followed = self._followed.of(self.writer)
            services = {one.label: tuple(one.entries) for one in followed.values()}
            for number, (key_id, label) in enumerate(sorted((await self._names.labels(self.owner)).items())):
                if number % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                if key_id not in followed:
                    services[label] = await self._entries(key_id, label)
            services = dict(sorted(services.items()))
            self._survey = Survey(version, services, LRUCache(KEPT_BYTES, lambda answer: len(answer.body)))
            return self._survey

    async def wait_beyond(self, survey: Survey) -> None:
        """Waits until another look may tell something else."""
        with trio.move_on_at(self._looked_at + STALE):
            while self._changes == survey.version:
                await self._changed.wait()
        await trio.sleep_until(self._looked_at + SETTLE)

    async def _entries(self, key_id: str, label: str) -> tuple[Entry, ...]:
        state = await self._state_of(key_id)
        if state.key is None:
            return ()
        entries: list[Entry] = []
        rested = 0
        for record in sorted(self._records_of(state), key=lambda record: record.slot):
            entries += self.writer.entries(label, record, partial(self._health_of, record.slot))
            if len(entries) - rested >= WRITTEN_AT_ONCE:
                rested = len(entries)
                await trio.lowlevel.checkpoint()
        return tuple(entries)
