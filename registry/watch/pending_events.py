"""The events that one watcher hasn't been told yet, as a pure function of its view and of what it was told.

Where there is presence, a record that is down or doesn't pass isn't told of before it is usable, unless the watcher
asked for all. One that was told stays told while it is down, until it is removed or expires: its watcher hears `DOWN`,
`UP` and `HEALTH`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from registry.health.health_reader import RecordHealth
from registry.health.state import HealthState
from registry.model.trusted_issuers import TrustRule
from registry.model.values import Record, Slot
from registry.watch.view import View
from registry.watch.watch_event import TRUST, EventKind, Visible, WatchEvent, same_content

HealthOf = Callable[[Record], RecordHealth]
"""What is known of a record's health, and of that of the instances that it names."""


class _ToldState(NamedTuple):
    record: Record
    is_up: bool = True
    state: HealthState = HealthState.PASSING
    instances: tuple[tuple[str, HealthState], ...] = ()


class PendingEvents:
    """A snapshot, then changes: per record they never go back and never repeat, and the last state is always told.

    Nothing is queued: whoever asks seldom gets the latest state, with the number of changes that it missed.
    """

    def __init__(
        self,
        view: View,
        trust: TrustRule | None = None,
        health_of: HealthOf | None = None,
        *,
        include_down: bool = False,
    ) -> None:
        """`trust`: what isn't believed by it isn't told. `health_of`: None where there is no presence.
        `include_down`: whether all live records are told of, however they are."""
        self._view = view
        self._trust = trust
        self._health_of = health_of
        self._include_down = include_down
        self._told: dict[Slot, _ToldState] | None = None
        self._versions: dict[Slot, int] = {}

    def shown(self, wall_clock: int) -> Visible:
        """The live records that this watcher believes at that time (seconds), and that are usable unless it wants
        all."""
        believed = self._believed(wall_clock)
        if self._health_of is None or self._include_down:
            return believed
        return {slot: record for slot, record in believed.items() if self._health_of(record).is_usable}

    def health_of(self, record: Record) -> RecordHealth | None:
        """How a record is, as far as is known now; None where there is no presence."""
        return self._health_of(record) if self._health_of is not None else None

    def doubted_at(self) -> int | None:
        """When something that was told won't be believed any more though nothing changes (seconds); None for never."""
        if self._trust is None or not self._told:
            return None
        ends = (self._trust.until(told.record) for told in self._told.values())
        return min((end for end in ends if end is not None), default=None)

    def next(self, wall_clock: int) -> WatchEvent | None:
        """The next event to tell at that time (seconds); None when there is none."""
        if not self._view.is_ready:
            return None
        if self._told is None:
            now = self.shown(wall_clock)
            self._told = {slot: self._as_told(record) for slot, record in now.items()}
            self._versions = dict(self._view.versions)
            records = tuple(now[slot] for slot in sorted(now))
            healths = {} if self._health_of is None else {slot: self._health_of(now[slot]) for slot in now}
            return WatchEvent(EventKind.SNAPSHOT, records=records, healths=healths)
        live = self._believed(wall_clock)
        now = live if self._health_of is None else self.shown(wall_clock) | _those_in(live, self._told)
        dirty = [slot for slot in self._told.keys() | now.keys() if not self._is_told(slot, now.get(slot))]
        if not dirty:
            return None
        slot = min(dirty, key=lambda slot: (self._view.changed_at.get(slot, 0), slot))
        return self._event(slot, self._told, now.get(slot))

    def _event(self, slot: Slot, told: dict[Slot, _ToldState], record: Record | None) -> WatchEvent:
        before = told.pop(slot, None)
        if record is not None:
            told[slot] = after = self._as_told(record)
            health = self.health_of(record)
            if before is not None and same_content(before.record, record):
                if before.is_up != after.is_up:
                    return WatchEvent(EventKind.UP if after.is_up else EventKind.DOWN, record, health=health)
                return WatchEvent(EventKind.HEALTH, record, health=health)
        version = self._view.versions.get(slot, 0)
        missed = max(version - self._versions.get(slot, 0) - 1, 0)
        self._versions[slot] = version
        if record is None:
            if slot not in self._view.versions:
                del self._versions[slot]
            reason = TRUST if slot in self._view.visible else self._view.why_withheld(slot)
            kind = EventKind.REMOVED if reason or self._view.was_removed(slot) else EventKind.EXPIRED
            return WatchEvent(kind, before.record if before else None, reason=reason, coalesced=missed)
        if before is not None and before[1:] != after[1:]:  # what changed of its health is told next
            told[slot] = before._replace(record=record)
        kind = EventKind.ADDED if before is None else EventKind.UPDATED
        return WatchEvent(kind, record, coalesced=missed, health=health)

    def _believed(self, wall_clock: int) -> Visible:
        if self._trust is None:
            return self._view.visible
        return self._trust.believed(self._view.state.key, self._view.visible, wall_clock)

    def _as_told(self, record: Record) -> _ToldState:
        health = self.health_of(record)
        if health is None:
            return _ToldState(record)
        instances = tuple((instance, each.state) for instance, each in health.instances.items())
        return _ToldState(record, health.is_up, health.health.state, instances)

    def _is_told(self, slot: Slot, record: Record | None) -> bool:
        told = (self._told or {}).get(slot)
        if told is None or record is None:
            return told is None and record is None
        if told.record is not record and not same_content(told.record, record):
            return False
        return self._health_of is None or told[1:] == self._as_told(record)[1:]


def _those_in(live: Visible, told: dict[Slot, _ToldState]) -> Visible:
    return {slot: record for slot, record in live.items() if slot in told}
